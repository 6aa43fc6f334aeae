"""What a machine does from its boot to its end, as a script: EC2 hands it over as user data.

The engine runs in the image that deployments start, so that the vLLM which was measured is the one that
serves, and nothing depends on the host's Python. The first command arms the machine's own end.
"""

import json
import shlex

from hgpu.core.errors import InputError
from hgpu.deploy.cloud.job import CloudJob
from hgpu.deploy.cloud.state import JobState

WORK = "/var/lib/hgpu"
ARTIFACTS, LOG, STATUS = "artifacts.tar.gz", "log.txt", "status.json"
LOG_BYTES = 256 * 1024
SENDING_S = 300  # kept free before the deadline, to send what there is
LONGEST_BYTES = 16 * 1024  # of user data, as EC2 takes it
_END = "HGPU_END"


def user_data(job: CloudJob, state: JobState) -> str:
    """Return a machine's script: whatever fails, it sends log and status, and shuts down.

    The status comes last: where it is, all else is. Raises InputError where EC2 wouldn't take the script.
    """
    deadline_min = job.options.deadline_min
    script = "\n".join(
        [
            "#!/bin/bash",
            "# Measures with hgpu, sends what it has, and ends. Shutting down terminates the machine.",
            f"shutdown -h +{deadline_min} || shutdown -h now",
            "set -euo pipefail",
            "umask 077",
            f"mkdir -p {WORK}/results",
            f"cd {WORK}",
            "exec > log 2>&1",
            *_finish(job, state),
            "step=files",
            *_file("spec.yaml", json.dumps(job.spec)),  # JSON is YAML, and one line of ASCII
            *_file("measure.sh", "\n".join(measure_commands(job))),
            *_wheel(job, state),
            *_secret(job),
            "step=image",
            shlex.join(["docker", "pull", "--quiet", job.options.image]),
            "step=profile",
            f"left_s=$(({deadline_min * 60 - SENDING_S} - SECONDS))",
            f'timeout --kill-after=30 "$left_s" {shlex.join(_run(job))}',
            "",
        ]
    )
    if len(script.encode()) > LONGEST_BYTES:
        raise InputError(
            "the machine's script is too long",
            f"it has {len(script.encode())} bytes, and EC2 takes {LONGEST_BYTES}",
            "give a shorter --install, or a wheel",
        )
    return script


def measure_commands(job: CloudJob) -> list[str]:
    """Return what is run inside of vLLM's image: hgpu is installed there, and profiles as for anybody."""
    wheel = job.options.install.wheel
    source = job.options.install.requirement if wheel is None else f"{WORK}/{wheel.name}"
    profile = ["hgpu", "profile", f"{WORK}/spec.yaml", "--profiler", "vllm", *job.settings.words()]
    return [
        "set -euo pipefail",
        shlex.join(["uv", "pip", "install", "--system", source]),
        shlex.join([*profile, "--results", f"{WORK}/results"]),
    ]


def _finish(job: CloudJob, state: JobState) -> list[str]:
    """Return what happens at the end, however it comes."""
    return [
        f'send() {{ {_copy(job)} "$1" {_address(job, state)}"$2"; }}',
        "finish() {",
        "  rc=$?",
        "  trap - EXIT",
        "  set +e",
        "  sha256=",
        f"  if [ -d results/profile ] && tar -C results -czf {ARTIFACTS} profile &&",
        f"    send {ARTIFACTS} {ARTIFACTS}",
        f"  then sha256=$(sha256sum {ARTIFACTS} | cut -d ' ' -f 1)",
        "  fi",
        f"  tail -c {LOG_BYTES} log > {LOG}",
        f"  send {LOG} {LOG}",
        f'  printf \'{{"rc": %d, "step": "%s", "sha256": "%s"}}\\n\' "$rc" "$step" "$sha256" > {STATUS}',
        f"  send {STATUS} {STATUS}",
        "  shutdown -h now",
        "}",
        "trap finish EXIT",
    ]


def _wheel(job: CloudJob, state: JobState) -> list[str]:
    """Return how the machine gets a wheel of the user's: from the bucket, and no other one than was sent."""
    install = job.options.install
    if install.wheel is None:
        return []
    name = install.wheel.name
    return [
        "step=wheel",
        f"{_copy(job)} {_address(job, state)}{shlex.quote(name)} {shlex.quote(name)}",
        f"echo {shlex.quote(f'{install.sha256}  {name}')} | sha256sum --check --quiet",
    ]


def _secret(job: CloudJob) -> list[str]:
    """Return how the machine reads the secret that was named, with its own role; it is kept in memory."""
    if job.options.secret is None:
        return []
    fetch = ["aws", "secretsmanager", "get-secret-value", "--region", job.machine.region]
    fetch += ["--secret-id", job.options.secret, "--query", "SecretString", "--output", "text"]
    return [
        "step=secret",
        "mkdir -p /run/hgpu",
        f"{shlex.join(fetch)} > /run/hgpu/secrets  # NAME=value lines",
    ]


def _run(job: CloudJob) -> list[str]:
    words = ["docker", "run", "--rm", "--name", "hgpu-profile", "--gpus", "all", "--ipc", "host"]
    words += ["--env-file", "/run/hgpu/secrets"] if job.options.secret is not None else []
    words += ["--env", f"HF_HOME={WORK}/huggingface", "--volume", f"{WORK}:{WORK}", "--workdir", WORK]
    return [*words, "--entrypoint", "bash", job.options.image, f"{WORK}/measure.sh"]


def _copy(job: CloudJob) -> str:
    return shlex.join(["aws", "s3", "cp", "--only-show-errors", "--region", job.machine.region])


def _address(job: CloudJob, state: JobState) -> str:
    store = job.options.store
    return shlex.quote(f"s3://{store.bucket}/{store.prefix}/{state.folder}")


def _file(name: str, text: str) -> list[str]:
    if _END in text.splitlines():
        raise InputError(
            f"the machine's {name} holds the line {_END}", "it would end there", "name it otherwise"
        )
    return [f"cat > {name} <<'{_END}'", text, _END]
