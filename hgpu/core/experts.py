"""How the experts of a mixture are kept on a device and in host memory: the cache of mode `offload`."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from hgpu.core.errors import InputError


class ExpertPolicy(StrEnum):
    """Which experts of a layer stay on the device."""

    ON_DEMAND = "on_demand"  # none: each step copies what it needs
    STATIC = "static"  # the hottest of a profile; what else a step needs is copied and dropped
    LRU = "lru"  # the last used
    LFU = "lfu"  # those that most steps used
    PINNED_LFU = "pinned_lfu"  # the hottest of a profile for good, the rest by use


class Prefetch(StrEnum):
    """What guesses the experts of a layer before its router has spoken."""

    NONE = "none"
    TOKEN = "token"  # a table from token to experts, made from a routing trace
    NEXT_GATE = "next_gate"  # the next layer's router, applied to this layer's hidden states


class Link(StrEnum):
    """What experts are copied over."""

    PINNED = "pinned host memory to device"
    HOST = "within the host's memory"  # on a CPU, which has no link


@dataclass(frozen=True, slots=True)
class CopySpeed:
    """How fast an expert of `expert_bytes` was copied: the median round, the slowest and the fastest."""

    link: Link
    expert_bytes: int
    bytes_per_s: float
    slowest_bytes_per_s: float
    fastest_bytes_per_s: float


PINNING = (ExpertPolicy.STATIC, ExpertPolicy.PINNED_LFU)


@dataclass(frozen=True, slots=True)
class ExpertCache:
    """An expert cache as it is planned: what part of the experts has a slot, and what decides on them.

    With `wide`, one more buffer as large as a layer's experts stands beside the slots, shared by all layers:
    a layer that needs more experts than it has slots is computed in it at once, at no more than one copy an
    expert. Without, its tokens are computed group by group, and experts are copied again and again: right for
    a few sequences that decode, and far too slow for prompts.

    `layer_slots` are those of each layer where they were divided by demand; else all have as many.
    """

    fraction: float
    policy: ExpertPolicy = ExpertPolicy.PINNED_LFU
    prefetch: Prefetch = Prefetch.NONE
    wide: bool = True
    layer_slots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(
                f"an expert cache of {self.fraction} of the experts",
                "it is a fraction of them, above 0 and at most 1",
                "give one as 0.25",
            )

    @property
    def name(self) -> str:
        """Short label, as `25% pinned_lfu` or `12.5% lru+token`."""
        prefetch = "" if self.prefetch is Prefetch.NONE else f"+{self.prefetch}"
        return f"{self.fraction * 100:g}% {self.policy}{prefetch}"

    def slots(self, experts: int, experts_per_token: int) -> int:
        """Return a layer's slots: the fraction, rounded up.

        Raises InputError where that is fewer than one token needs.
        """
        slots = ceil(self.fraction * experts - 1e-9)
        if slots < experts_per_token:
            raise InputError(
                f"{slots} slots a layer can't hold the {experts_per_token} experts of one token",
                f"they are {self.fraction:.3g} of {experts} experts",
                f"cache at least {experts_per_token / experts:.3g} of them",
            )
        return slots

    def slots_of(self, experts: int, experts_per_token: int, layers: int) -> tuple[int, ...]:
        """Return the slots of each layer.

        Raises InputError where they are too few for one token, or are those of another model.
        """
        if not self.layer_slots:
            return (self.slots(experts, experts_per_token),) * layers
        least, most = min(self.layer_slots), max(self.layer_slots)
        if len(self.layer_slots) != layers or least < experts_per_token or most > experts:
            raise InputError(
                f"slots of {len(self.layer_slots)} layers, {least} to {most} each, don't fit the model",
                f"it has {layers} layers of {experts} experts, of which a token takes {experts_per_token}",
                "divide the slots again for this model",
            )
        return self.layer_slots
