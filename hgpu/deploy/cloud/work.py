"""One job from its intent to its results, whatever fails on the way; then nothing of it is left.

The state on disk, the tags of machines and the names in the bucket tell a later call how far an earlier one
had come, wherever it was interrupted.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hgpu.artifacts.resolve import resolve
from hgpu.core.errors import EngineError, HgpuError
from hgpu.deploy.cloud.bucket import Bucket, MachineStatus
from hgpu.deploy.cloud.home import Profile, brought_home, failure
from hgpu.deploy.cloud.job import CloudJob
from hgpu.deploy.cloud.machine import launch, seen, take_away
from hgpu.deploy.cloud.state import JobState, Step, read_state, write_state
from hgpu.deploy.ec2.clients import Clients, is_final
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.world import Instance
from hgpu.deploy.lock import locked
from hgpu.deploy.state_file import state_folder

TRIES = 3
SAY_EVERY = timedelta(minutes=5)
Say = Callable[[str], None]


class Stopped(HgpuError):
    """The user doesn't want it any more."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """How AWS is reached, and how long is waited for it; `stop` ends all waiting for results."""

    clients: Clients
    bucket: Callable[[CloudJob], Bucket]
    waits: Waits
    now: Callable[[], datetime]
    lineage: Callable[[], str]
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The profiles of a job that are in the store, and why there aren't more."""

    profiles: tuple[Profile, ...]
    error: HgpuError | None = None


@dataclass(slots=True)
class Work:
    """A job at work; `state` is as it stands on disk."""

    job: CloudJob
    root: Path
    cloud: Cloud
    say: Say
    state: JobState = field(init=False)

    def run(self) -> Outcome:
        """Measure, bring home, and take the machine away, under the job's lock.

        Raises HgpuError where nothing could be measured, or where a machine may be left.
        """
        with locked(self._folder):
            self.state = read_state(self._folder) or self._first()
            try:
                outcome = self._measured()
            except BaseException as error:
                self._end_after(error)
                raise
            self._end()
            return outcome

    @property
    def _folder(self) -> Path:
        return state_folder(self.root, self.job.name)

    @property
    def _bucket(self) -> Bucket:
        return self.cloud.bucket(self.job)

    def _first(self) -> JobState:
        return JobState(name=self.job.name, region=self.job.machine.region, lineage=self.cloud.lineage())

    def _measured(self) -> Outcome:
        if self.state.step is Step.HOME:  # an earlier call didn't live to end it
            return Outcome(tuple(resolve(self.root, digest, "profile") for digest in self.state.artifacts))
        status = self._resumed()
        if status is None:
            self._launched()
            status = self._awaited()
        self.say("its results are there")
        profiles = brought_home(self.job, self.state, status, self._bucket, self._folder, self.root)
        error = failure(self.job, status, profiles, self._folder)
        if error is None:
            digests = [profile.digest for profile in profiles]
            self._save(step=Step.HOME, artifacts=digests)
        return Outcome(tuple(profiles), error)

    def _resumed(self) -> MachineStatus | None:
        """Go on with the machine of an earlier call, or return what it said; else aim at a new one."""
        if self.state.step is Step.ENDED:
            self._next()
            return None
        found = seen(self.state, self._client)
        if found is not None and found.living:
            self.say(f"going on with {found.id}")
            self._save(step=Step.RUNNING, instance_id=found.id)
            return None
        status = self._bucket.status(self.state.folder)
        unanswered = self.state.instance_id is None and found is None
        if status is None and not (unanswered and self.cloud.now() < self.state.due):
            self._next()
        return status

    def _launched(self) -> None:
        """Launch what isn't there yet; where EC2 knows a token from something else, take the next."""
        for _ in range(TRIES):
            if self.state.step is Step.RUNNING:
                return
            if self.cloud.stop.is_set():
                raise self._stopped()
            wheel = self.job.options.install.wheel
            if wheel is not None:
                self._bucket.send(wheel, f"{self.state.folder}{wheel.name}")
            self.say(f"launching in {self.state.region}")
            found = self._launch()
            if found is not None and found.living:
                self._save(step=Step.RUNNING, instance_id=found.id)
                self.say(f"is {found.id}, until {self.state.deadline} at the latest")
            else:
                self._next()
        if self.state.step is not Step.RUNNING:
            raise HgpuError(
                f"{self.job.machine.instance_type} can't be launched",
                f"EC2 knows the last {TRIES} tokens from machines that are gone, or from other requests",
                "run the same command again",
            )

    def _launch(self) -> Instance | None:
        try:
            return launch(self.job, self.state, self._client)
        except HgpuError as error:
            if is_final(error.__cause__):  # nothing was launched
                self._save(step=Step.ENDED)
            raise

    def _awaited(self) -> MachineStatus:
        """Wait until the machine has said how it ended. Raises EngineError where it ends without a word."""
        began = said = self.cloud.now()
        hidden_until = began + timedelta(seconds=self.cloud.waits.visible_s)
        while True:
            # Whether it runs is asked first: what it says last, it says before it ends.
            found = seen(self.state, self._client)
            status = self._bucket.status(self.state.folder)
            if status is not None:
                return status
            now = self.cloud.now()
            if now >= self.state.due:
                raise self._silent(f"its deadline, {self.state.deadline}, is over")
            if (found is None and now >= hidden_until) or (found is not None and not found.living):
                raise self._silent(f"it is {_how(found)}")
            if now >= said + SAY_EVERY:
                said = now
                self.say(f"at work for {(now - began) // timedelta(minutes=1)} minutes")
            if self.cloud.stop.wait(self.cloud.waits.poll_s):
                raise self._stopped()

    def _stopped(self) -> Stopped:
        return Stopped(f"{self.job.machine.instance_type} is not wanted any more", "it was interrupted")

    def _silent(self, why: str) -> EngineError:
        return EngineError(
            f"{self.job.machine.instance_type} sent nothing",
            f"{self.state.instance_id}: {why}",
            "its role must be allowed to write to the bucket, its network to reach S3, image and model; "
            "or give it more --deadline",
        )

    def _next(self) -> None:
        """Write down the intent of another attempt."""
        due = self.cloud.now() + timedelta(minutes=self.job.options.deadline_min)
        self._save(
            step=Step.LAUNCHING,
            attempt=self.state.attempt + 1,
            instance_id=None,
            deadline=due.isoformat(timespec="seconds"),
            artifacts=[],
        )

    def _end(self) -> None:
        """Leave nothing behind, and write that down."""
        some = self.state.step is not Step.ENDED
        if some and take_away(self.state, self.cloud.clients, self.cloud.waits):
            self.say("terminated")
        self._bucket.drop(self.state.lineage_folder)
        self._save(step=Step.ENDED, instance_id=None)

    def _end_after(self, error: BaseException) -> None:
        """End it after an error, which must not be lost to another one."""
        try:
            self._end()
        except HgpuError as left:
            due = self.state.deadline
            self.say(f"its machine may still run: {left}")
            self.say(f"it ends by itself around {due}; the same command takes it away before")

    @property
    def _client(self) -> Any:
        return self.cloud.clients(self.state.region)

    def _save(self, **changed: object) -> None:
        self.state = write_state(self._folder, self.state.model_copy(update=changed))


def _how(found: Instance | None) -> str:
    if found is None:
        return "not described by EC2"
    return f"{found.state}: {found.reason or 'EC2 gives no reason'}"
