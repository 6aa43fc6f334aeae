import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import deploy_standin

from hgpu.deploy.driver import DeployOptions


@pytest.fixture
def bench(tmp_path):
    """A results folder with a plan for two engines, and a driver that starts stand-ins."""
    made = Bench(tmp_path)
    yield made
    for name in made.driver.names(made.root):
        made.driver.destroy(made.root, name)


class Bench:
    def __init__(self, folder):
        self.root = folder
        self.steps = []
        self.driver = deploy_standin.driver(folder)
        self.plan = deploy_standin.saved_plan(folder)

    def apply(self, driver=None, plan=None, progress=None, **options):
        options = DeployOptions(timeout_s=20, **options)
        report = progress or self.steps.append
        return (driver or self.driver).apply(plan or self.plan, self.root, options, report)

    def misbehaving(self, *flags):
        return deploy_standin.driver(self.root, *flags)

    @property
    def name(self):
        return f"chat-service-{self.plan.digest[:8]}"

    @property
    def folder(self):
        return self.root / "state" / self.name

    def status(self):
        return self.driver.status(self.root, self.name)[0]

    def destroy(self):
        return self.driver.destroy(self.root, self.name)
