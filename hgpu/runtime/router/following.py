"""Which plan a router follows, and how it comes to follow another one while it serves."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hgpu.core.errors import InputError
from hgpu.runtime.router.table import Table

if TYPE_CHECKING:
    from hgpu.runtime.router.router import Router


@dataclass(frozen=True, slots=True)
class Followed:
    """A plan's routing table with the URL of each of its pools; `name` is what logs call the plan.

    A pool in `prefill_urls` is a pair: there its prompts are computed, and at its other URL it decodes.
    Raises InputError where the table has no pool, the URLs aren't those of its pools, or a prefill engine is
    of none of them.
    """

    table: Table
    urls: Mapping[str, str]
    name: str = ""
    prefill_urls: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.table.pools:
            raise InputError("the plan has no pools", "its allocation is empty", "plan for a rate above zero")
        missing = sorted(set(self.table.pools) - set(self.urls))
        unknown = sorted(set(self.urls) - set(self.table.pools))
        if missing or unknown:
            rows = (("missing:", missing), ("not in it:", unknown))
            raise InputError(
                "the pools' URLs don't match the plan",
                "; ".join(f"{what} {', '.join(names)}" for what, names in rows if names),
                "give a URL once for each pool of `hgpu show PLAN`, with --pool or in the file of --pools",
            )
        strangers = sorted(set(self.prefill_urls) - set(self.table.pools))
        if strangers:
            raise InputError(
                f"no pool is called {', '.join(strangers)}",
                f"the plan's are {', '.join(self.table.pools)}",
                "give prefill engines of pools of `hgpu show PLAN` only",
            )


Read = Callable[[], Followed]  # reads plan and URLs anew


async def follow_again(router: "Router", read: Read, asked: asyncio.Event) -> None:
    """Read the plan again whenever that is asked; one that can't be followed is said, and the old one stays.

    Reading and checking happen in a thread, so no stream waits for them.
    """
    while True:
        await asked.wait()
        asked.clear()
        try:
            router.follow(await asyncio.to_thread(read))
        except Exception as error:  # whatever a file holds, the router must go on
            router.metrics.reread("refused")
            router.note(f"plan {router.plan.name} stays: {error}")
        else:
            router.metrics.reread("followed")
            names = ", ".join(server.name for server in router.servers)
            router.note(f"following plan {router.plan.name}: pools {names}")
