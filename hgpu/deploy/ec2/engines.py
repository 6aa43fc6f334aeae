"""The upper rungs of the health ladder: engines asked over HTTP, where hgpu runs inside their network."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hgpu.core.errors import EngineError
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.state import Ec2State, MachineState
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.ec2.world import World
from hgpu.deploy.render.pods import PORT
from hgpu.runtime.completion import Completion, complete, served_model
from hgpu.runtime.health import is_healthy

Addresses = Callable[[str, int], Sequence[str]]  # from a private address and a count of engines to URLs


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine answered to one request of one token."""

    engine: str
    completion: Completion


def private_urls(address: str, engines: int) -> list[str]:
    """Return the URLs of a machine's engines inside its network."""
    return [f"http://{address}:{PORT + number}" for number in range(engines)]


def engine_urls(
    machines: Sequence[MachineState], engines: Mapping[str, int], world: World, addresses: Addresses
) -> dict[str, str]:
    """Return the URL of each engine by its name; `engines` counts those on a machine, by template."""
    return {
        f"{machine.slot}/engine-{number}": url
        for machine in machines
        if (found := world.instance(machine.instance_id)) is not None
        for number, url in enumerate(addresses(found.private_ip, engines.get(machine.template, 0)))
    }


def proven(
    state: Ec2State,
    pools: Sequence[WantedPool],
    world: World,
    addresses: Addresses,
    waits: Waits,
    model: str,
) -> list[Answer]:
    """Return a one-token completion of every engine, after /health and /v1/models.

    Raises EngineError naming the engine that isn't healthy in time, serves another model or makes no token.
    """
    urls = engine_urls(state.machines, {p.template: p.engines for p in pools}, world, addresses)
    deadline = time.monotonic() + waits.health_s
    answers = []
    for name, url in urls.items():
        _await_health(name, url, deadline, waits)
        served = served_model(url)
        if served != model:
            raise EngineError(f"{name} serves {served}", f"the plan is for {model}", f"look at {url}")
        answers.append(Answer(name, complete(url, served, "The quick brown fox", 1)))
    return answers


def _await_health(name: str, url: str, deadline: float, waits: Waits) -> None:
    while not is_healthy(url):  # no event tells that another machine's server has come up
        if time.monotonic() > deadline:
            raise EngineError(
                f"{name} is not healthy after {waits.health_s:g} s",
                f"{url}/health doesn't answer 200",
                "read the machine's console output; open the port to this machine; or allow more --timeout",
            )
        time.sleep(waits.poll_s)
