"""From the fleet there is to the fleet that is wanted, without a gap between them.

More engines are ordered at once. Engines are taken away only when every pool has as many *ready* as the
goal asks for: then what is left carries the load by itself.
"""

from collections.abc import Sequence

from hgpu.runtime.control.pools import ControlledPool


def step_towards(
    goal: Sequence[int],
    ordered: Sequence[int],
    ready: Sequence[int],
    pools: Sequence[ControlledPool],
    may_shrink: bool = True,
) -> tuple[int, ...]:
    """Return the engines that each pool is to have now, never more than its cap.

    `ordered` are those that run or start, `ready` those that answer.
    """
    there = all(have >= want for have, want in zip(ready, goal, strict=True))
    steps = [
        want if may_shrink and there else max(want, have) for want, have in zip(goal, ordered, strict=True)
    ]
    return tuple(
        count if pool.most is None else min(count, pool.most)
        for count, pool in zip(steps, pools, strict=True)
    )
