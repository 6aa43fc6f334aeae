"""The upper rungs of the health ladder: engines asked over HTTP, where hgpu runs inside their network."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hgpu.core.errors import EngineError
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step
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
    deadline = time.monotonic() + waits.health_s
    engines = {pool.template: pool.engines for pool in pools}
    answers = []
    for name, url in _urls(state.at(Step.UP), engines, world, addresses):
        _await_health(name, url, deadline, waits)
        served = served_model(url)
        if served != model:
            raise EngineError(f"{name} serves {served}", f"the plan is for {model}", f"look at {url}")
        answers.append(Answer(name, complete(url, served, "The quick brown fox", 1)))
    return answers


def _urls(
    machines: Sequence[MachineState], engines: Mapping[str, int], world: World, addresses: Addresses
) -> Iterator[tuple[str, str]]:
    """Yield each engine's name and URL; `engines` counts those on a machine, by template."""
    for machine in machines:
        found = world.instance(machine.instance_id)
        if found is None or not found.private_ip:
            raise EngineError(
                f"{machine.slot} has no private address",
                f"EC2 shows none of {machine.instance_id}",
                "deploy again",
            )
        for number, url in enumerate(addresses(found.private_ip, engines[machine.template])):
            yield f"{machine.slot}/engine-{number}", url


def _await_health(name: str, url: str, deadline: float, waits: Waits) -> None:
    while not is_healthy(url):  # no event tells that another machine's server has come up
        if time.monotonic() > deadline:
            raise EngineError(
                f"{name} is not healthy after {waits.health_s:g} s",
                f"{url}/health doesn't answer 200",
                "read the machine's console output; open the port to this machine; or allow more --timeout",
            )
        time.sleep(waits.poll_s)
