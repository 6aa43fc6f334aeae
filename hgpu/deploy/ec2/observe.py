"""One look at a deployment's machines: EC2's checks, spot notices and, inside the network, their engines."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from hgpu.core.offer import Market
from hgpu.deploy.ec2.aim import Reach
from hgpu.deploy.ec2.clients import told
from hgpu.deploy.ec2.ladder import Seen
from hgpu.deploy.ec2.notices import notices_of
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step
from hgpu.deploy.ec2.world import World, passing
from hgpu.runtime.health import is_healthy

AT_ONCE = 16  # machines whose engines are asked at a time


def observed(state: Ec2State, world: World, reach: Reach, engines: Mapping[str, int]) -> Seen:
    """Ask EC2 and the engines; `engines` counts those of a machine, by template."""
    mine = {m.instance_id for m in state.machines if m.instance_id}
    running = [i for i in world.instances if i.state == "running" and i.id in mine]
    good: set[str] = set()
    with told():
        for region in sorted({found.region for found in running}):
            good |= passing(reach.clients(region), [i.id for i in running if i.region == region])
    spot = {m.instance_id for m in state.machines if m.market == Market.SPOT}
    notices = notices_of(reach.clients, [i for i in world.instances if i.living and i.id in spot])
    asked = [m for m in state.at(Step.LAUNCHING, Step.UP, Step.LEAVING) if m.instance_id in good]
    ill: dict[str, str] = {}
    if state.private_addresses and asked:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = pool.map(lambda machine: _ill(machine, world, reach, engines), asked)
            ill = {str(m.instance_id): why for m, why in zip(asked, said, strict=True) if why}
    return Seen(frozenset(good), ill, notices)


def _ill(machine: MachineState, world: World, reach: Reach, engines: Mapping[str, int]) -> str:
    """Say which engine of a machine isn't healthy; nothing where all are."""
    found = world.instance(machine.instance_id)
    if found is None or not found.private_ip:
        return "it has no private address"
    for number, url in enumerate(reach.addresses(found.private_ip, engines.get(machine.template, 1))):
        if not is_healthy(url):
            return f"engine-{number} isn't healthy at {url}"
    return ""
