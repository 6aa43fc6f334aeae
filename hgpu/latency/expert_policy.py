"""Which experts of one layer are on the device: the decisions of an expert cache, without any copying.

The engine plugin carries these decisions out and `hgpu.latency.expert_replay` counts them on a routing trace:
both run this code, so a replay of a trace counts what an engine would have copied.

A layer has `slots`. Some are pinned for good; the others, the dynamic ones, hold what the policy keeps. For
each step the layer is told the experts of each token. What they need and isn't there is loaded; if it doesn't
all fit, the tokens are parted into groups that do fit, or, in a wide cache, the whole step is computed in a
buffer that holds all experts. A token's experts are always in one group: its result is the sum over them in
one kernel call, and parting the sum would round it otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.experts import PINNING, ExpertPolicy
from hgpu.latency.routing import Ids

ABSENT = -1
Order = Callable[[int], Any]  # an expert -> a key: the expert with the least is dropped first


@dataclass(frozen=True, slots=True)
class Load:
    """An expert to copy from the host into a slot."""

    expert: int
    slot: int


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Tokens to compute in one kernel call, after `loads`.

    In a `wide` group the call runs in the wide buffer, where expert e has place e: loads go there, and the
    experts that have slots are copied there from them (`here`).
    """

    tokens: np.ndarray[tuple[int], np.dtype[np.int64]]
    loads: tuple[Load, ...]
    wide: bool = False
    here: tuple[Load, ...] = ()


@dataclass(slots=True)
class Counts:
    """What a cache did. `needs` are the distinct experts of each group, of which `hits` were there already.

    `misses` were loaded while the step waited; `prefetched` were loaded ahead, `prefetch_hits` of them used.
    """

    steps: int = 0
    tokens: int = 0
    needs: int = 0
    hits: int = 0
    misses: int = 0
    prefetched: int = 0
    prefetch_hits: int = 0
    groups: int = 0
    wide_groups: int = 0

    @property
    def loads(self) -> int:
        """Experts copied from the host."""
        return self.misses + self.prefetched

    @property
    def hit_ratio(self) -> float:
        """Part of the needs that were there."""
        return self.hits / self.needs if self.needs else 1.0

    def add(self, other: "Counts") -> None:
        """Add another's counts to these."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class LayerCache:
    """The experts of one layer that are on the device, under a policy.

    `slot_of` (E) holds each expert's slot or −1. `order` replaces the policy's choice of what is dropped
    first. Raises InputError where `slots` can't hold one token's experts beside the pinned ones.
    """

    def __init__(
        self,
        experts: int,
        per_token: int,
        slots: int,
        policy: ExpertPolicy,
        pinned: Sequence[int] = (),
        wide: bool = False,
        order: Order | None = None,
    ) -> None:
        _require(experts, per_token, slots, policy, pinned)
        self.slots, self.wide = slots, wide
        self.counts = Counts()
        self.pinned = tuple(pinned)
        self.slot_of: Ids = np.full(experts, ABSENT, np.int32)
        self._in_slot: list[int] = [*self.pinned, *[ABSENT] * (slots - len(self.pinned))]
        self.slot_of[list(self.pinned)] = range(len(self.pinned))
        self._resident = self._pinned = _mask(self.pinned)
        self._dynamic = slots - len(self.pinned)
        self._keeps = policy not in (ExpertPolicy.ON_DEMAND, ExpertPolicy.STATIC)
        self._over = False
        self._uses = [0] * experts
        self._last = [0] * experts
        self._ahead = 0  # those loaded ahead and not used yet
        self._order = order or (self._recency if policy is ExpertPolicy.LRU else self._frequency)

    @property
    def preloads(self) -> tuple[Load, ...]:
        """What is loaded before the first step: the pinned experts."""
        return tuple(Load(expert, slot) for slot, expert in enumerate(self.pinned))

    def prefetch(self, wanted: Sequence[int]) -> tuple[Load, ...]:
        """Return the loads for what the coming step may need, the surest first, as far as it fits."""
        self._begin()
        fitting = list(islice((e for e in wanted if not self._pinned >> e & 1), self._dynamic))
        missing = [expert for expert in fitting if not self._resident >> expert & 1]
        loads = self._load(missing, _mask(fitting))
        self.counts.prefetched += len(loads)
        self._ahead |= _mask(missing)
        return loads

    def access(self, ids: Ids) -> Iterator[Group]:
        """Give a step's groups, one after the other; `ids` (T, k) are its tokens' experts.

        A group's loads overwrite slots of the group before: carry them out when that one is computed.
        """
        self._begin()
        self._over = True
        needed = _mask(np.unique(ids).tolist())
        self._used(needed, len(ids))
        if (needed & ~self._pinned).bit_count() <= self._dynamic:
            yield self._group(np.arange(len(ids)), needed)
        elif self.wide:
            yield self._wide_group(len(ids), needed)
        else:
            yield from self._parted([_mask(row) for row in ids.tolist()])

    def _parted(self, masks: Sequence[int]) -> Iterator[Group]:
        """Part tokens into groups, each begun by the token that most is there for and filled by first fit."""
        left = list(range(len(masks)))
        while left:
            first = min(left, key=lambda token: (masks[token] & ~self._resident).bit_count())
            union, chosen, after = masks[first], [], []
            for token in left:
                both = union | masks[token]
                if (both & ~self._pinned).bit_count() <= self._dynamic:
                    union = both
                    chosen.append(token)
                else:
                    after.append(token)
            left = after
            yield self._group(np.array(chosen), union)

    def _group(self, tokens: Any, needed: int) -> Group:
        missing = list(_members(needed & ~self._resident))
        self._count(needed, len(missing))
        return Group(tokens, self._load(missing, needed))

    def _wide_group(self, tokens: int, needed: int) -> Group:
        """Return a step in the wide buffer, which leaves the slots as they are."""
        missing = tuple(Load(expert, expert) for expert in _members(needed & ~self._resident))
        here = tuple(Load(e, int(self.slot_of[e])) for e in _members(needed & self._resident))
        self._count(needed, len(missing))
        self.counts.wide_groups += 1
        return Group(np.arange(tokens), missing, True, here)

    def _count(self, needed: int, missing: int) -> None:
        counts = self.counts
        counts.groups += 1
        counts.needs += needed.bit_count()
        counts.misses += missing
        counts.hits += needed.bit_count() - missing
        counts.prefetch_hits += (needed & self._ahead & self._resident).bit_count()
        self._ahead &= ~needed

    def _begin(self) -> None:
        """Drop what a policy doesn't keep from one step to the next."""
        if self._over and not self._keeps:
            for expert in _members(self._resident & ~self._pinned):
                self._drop(expert)
        self._over = False

    def _used(self, needed: int, tokens: int) -> None:
        self.counts.steps += 1
        self.counts.tokens += tokens
        for expert in _members(needed):
            self._uses[expert] += 1
            self._last[expert] = self.counts.steps

    def _load(self, missing: Sequence[int], keep: int) -> tuple[Load, ...]:
        """Give missing experts slots; those in `keep` stay."""
        if not missing:
            return ()
        free = [slot for slot in range(len(self.pinned), self.slots) if self._in_slot[slot] == ABSENT]
        lacking = len(missing) - len(free)
        if lacking > 0:
            victims = sorted(_members(self._resident & ~self._pinned & ~keep), key=self._order)[:lacking]
            free += [self._drop(expert) for expert in victims]
        loads = tuple(Load(expert, slot) for expert, slot in zip(missing, free, strict=False))
        for load in loads:
            self._in_slot[load.slot] = load.expert
            self.slot_of[load.expert] = load.slot
            self._resident |= 1 << load.expert
        return loads

    def _drop(self, expert: int) -> int:
        slot = int(self.slot_of[expert])
        self._in_slot[slot] = ABSENT
        self.slot_of[expert] = ABSENT
        self._resident &= ~(1 << expert)
        self._ahead &= ~(1 << expert)
        return slot

    def _recency(self, expert: int) -> tuple[int, ...]:
        return (self._last[expert], expert)

    def _frequency(self, expert: int) -> tuple[int, ...]:
        return (self._uses[expert], self._last[expert], expert)


def by_votes(predicted: Ids) -> list[int]:
    """Return the experts predicted for a step's tokens (T, k), those of most tokens first; −1 is no vote."""
    votes = np.bincount(predicted[predicted >= 0].ravel())
    order = np.argsort(-votes, kind="stable")
    return [int(expert) for expert in order if votes[expert]]


def pinned_of(ranking: Sequence[int], slots: int, per_token: int, policy: ExpertPolicy) -> tuple[int, ...]:
    """Return the experts to pin: the hottest that leave room for one token's experts."""
    if policy not in PINNING:
        return ()
    return tuple(int(expert) for expert in ranking[: slots - per_token])


def _require(experts: int, per_token: int, slots: int, policy: ExpertPolicy, pinned: Sequence[int]) -> None:
    if slots > experts or slots < per_token:
        raise InputError(
            f"{slots} slots for {experts} experts of which a token takes {per_token}",
            "a layer has a slot for each of a token's experts, and no more slots than experts",
            f"give {per_token} to {experts} slots a layer",
        )
    if pinned and policy not in PINNING:
        raise InputError(f"policy '{policy}' pins nothing", f"{len(pinned)} experts are to be pinned")
    fits = len(pinned) <= slots - per_token or slots == experts
    if len(set(pinned)) < len(pinned) or not fits or any(not 0 <= one < experts for one in pinned):
        raise InputError(
            f"{len(pinned)} experts can't be pinned in {slots} slots of {experts} experts",
            f"they are distinct experts, and {per_token} slots stay free for what else a token needs",
            f"pin at most {slots - per_token}",
        )


def _mask(experts: Iterable[int]) -> int:
    mask = 0
    for expert in experts:
        mask |= 1 << expert
    return mask


def _members(mask: int) -> Iterator[int]:
    """Give the experts of a mask, the lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
