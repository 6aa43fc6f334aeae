"""Jobs side by side, each in a thread of its own; an interrupt takes every machine away before it goes on."""

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hgpu.core.errors import HgpuError, InputError
from hgpu.deploy.cloud.bucket import Bucket
from hgpu.deploy.cloud.job import CloudJob
from hgpu.deploy.cloud.machine import sweep
from hgpu.deploy.cloud.work import Cloud, Outcome, Say, Work
from hgpu.deploy.ec2.clients import Clients, boto3_clients
from hgpu.deploy.ec2.options import Waits


def _now() -> datetime:
    return datetime.now(UTC)


def _new_lineage() -> str:
    return secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines that profile. The fields say how AWS is reached."""

    waits: Waits = field(default_factory=Waits)
    ec2: Callable[[], Clients] = boto3_clients
    s3: Callable[[], Clients] = lambda: boto3_clients("s3")
    now: Callable[[], datetime] = _now
    lineage: Callable[[], str] = _new_lineage

    def run(self, jobs: Sequence[CloudJob], root: Path, say: Say) -> dict[str, Outcome]:
        """Measure all jobs, and return what became of each by its name.

        Machines past their deadline, whosever they are, are taken away first. Raises InputError where
        credentials or the bucket are missing; KeyboardInterrupt goes on when no machine is left.
        """
        cloud = self._cloud(jobs)
        for place in {(job.machine.region, job.options.store): job for job in jobs}.values():
            cloud.bucket(place).require()
        self._sweep_first(sorted({job.machine.region for job in jobs}), say)
        with ThreadPoolExecutor(max_workers=max(1, len(jobs))) as pool:
            futures = {
                job.name: pool.submit(_outcome, Work(job, root, cloud, _by_name(job, say))) for job in jobs
            }
            try:
                return {name: future.result() for name, future in futures.items()}
            except BaseException:
                say("taking all machines away")
                cloud.stop.set()
                wait(futures.values())
                raise

    def sweep(self, regions: Sequence[str], say: Say) -> list[str]:
        """Terminate all machines in some regions that profile past their deadline; return them."""
        clients, gone = self.ec2(), []
        for region in regions:
            late, unread = sweep(region, clients, self.waits, self.now())
            gone += late
            for ident in late:
                say(f"{ident} in {region} was past its deadline, and is terminated")
            for ident in unread:
                say(f"{ident} in {region} has no deadline that can be read, and is left alone: look at it")
        return gone

    def _sweep_first(self, regions: Sequence[str], say: Say) -> None:
        """Sweep; where another's machine can't be taken away, that is told and doesn't stand in the way."""
        try:
            self.sweep(regions, say)
        except InputError:
            raise
        except HgpuError as error:
            say(f"machines past their deadline may still run: {error}")

    def _cloud(self, jobs: Sequence[CloudJob]) -> Cloud:
        """Return what reaches AWS; its clients are made here, as making them is not for threads."""
        clients, s3 = self.ec2(), self.s3()
        for job in jobs:
            clients(job.machine.region), s3(job.machine.region)
        return Cloud(
            clients,
            lambda job: Bucket(s3(job.machine.region), job.options.store),
            self.waits,
            self.now,
            self.lineage,
        )


def _outcome(work: Work) -> Outcome:
    try:
        return work.run()
    except HgpuError as error:
        return Outcome((), error)


def _by_name(job: CloudJob, say: Say) -> Say:
    return lambda text: say(f"{job.machine.instance_type}: {text}")
