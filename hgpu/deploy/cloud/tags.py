"""The tags of a machine that profiles: they alone are enough to find it and take it away."""

from collections.abc import Mapping
from datetime import datetime

from hgpu.deploy.cloud.job import PREFIX, CloudJob
from hgpu.deploy.cloud.state import JobState
from hgpu.deploy.ec2.tags import ATTEMPT, DEPLOYMENT, LINEAGE, Tag

DEADLINE = "hgpu:deadline"
TYPE = "hgpu:type"


def job_tags(job: CloudJob, state: JobState) -> list[Tag]:
    """Return the tags of a job's machine and its volumes."""
    values = {
        DEPLOYMENT: state.name,
        TYPE: job.machine.instance_type,
        LINEAGE: state.lineage,
        ATTEMPT: str(state.attempt),
        DEADLINE: state.deadline,
        "Name": state.name,
    }
    return [{"Key": key, "Value": value} for key, value in values.items()]


def of_job(state: JobState) -> list[dict[str, object]]:
    """Return the filter of describe calls for all machines that a state stands for."""
    values = {DEPLOYMENT: state.name, LINEAGE: state.lineage}
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in values.items()]


def of_attempt(state: JobState) -> list[dict[str, object]]:
    """Return the filter of describe calls for the machine of the present attempt."""
    return [*of_job(state), {"Name": f"tag:{ATTEMPT}", "Values": [str(state.attempt)]}]


def of_any_job() -> list[dict[str, object]]:
    """Return the filter of describe calls for every machine that profiles, whosever it is."""
    return [
        {"Name": f"tag:{DEPLOYMENT}", "Values": [f"{PREFIX}*"]},
        {"Name": "tag-key", "Values": [DEADLINE]},
    ]


def deadline_of(tags: Mapping[str, str]) -> datetime | None:
    """Return the deadline in tags, None where it is no moment with a time zone."""
    try:
        moment = datetime.fromisoformat(tags.get(DEADLINE, ""))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
