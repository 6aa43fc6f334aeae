"""What a rented machine has and this one hasn't, under the names that the machine's script calls.

`aws` and `shutdown` do against moto what the real ones do; `docker run` runs the same command without a
container; `uv` notes what it was to install; `hgpu` is the real program, with a GPU that isn't there and
a stand-in for vLLM. MACHINE_FAULTS (JSON) says what fails, by part.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

FAULTS = json.loads(os.environ.get("MACHINE_FAULTS", "{}"))
NOTES = Path(os.environ["MACHINE_NOTES"])


def client(service, region="us-east-1"):
    import boto3

    return boto3.client(service, region_name=region)


def note(*words):
    with NOTES.open("a") as stream:
        stream.write(json.dumps(words) + "\n")


def shutdown(flag, when):
    note("shutdown", when)
    assert flag == "-h"
    if when == "now":
        client("ec2").terminate_instances(InstanceIds=[os.environ["MACHINE_ID"]])


def aws(*words):
    note("aws", *words)
    match words:
        case ("s3", "cp", "--only-show-errors", "--region", region, source, target):
            s3 = client("s3", region)
            if source.startswith("s3://"):
                bucket, key = source.removeprefix("s3://").split("/", 1)
                s3.download_file(bucket, key, target)
            else:
                bucket, key = target.removeprefix("s3://").split("/", 1)
                s3.upload_file(source, bucket, key)
        case ("secretsmanager", "get-secret-value", "--region", region, "--secret-id", name, *rest):
            assert rest == ["--query", "SecretString", "--output", "text"]
            print(client("secretsmanager", region).get_secret_value(SecretId=name)["SecretString"])
        case _:
            raise AssertionError(words)


def docker(verb, *words):
    note("docker", verb, *words)
    if verb == "pull":
        return
    environment, words, taken = dict(os.environ), list(words), {}
    while words[0].startswith("--"):
        flag = words.pop(0)
        if flag == "--rm":
            continue
        taken.setdefault(flag, []).append(words.pop(0))
    image, script = words
    assert verb == "run" and image and taken["--entrypoint"] == ["bash"] and taken["--gpus"] == ["all"]
    for path in taken.get("--env-file", []):
        environment |= dict(line.split("=", 1) for line in Path(path).read_text().splitlines() if line)
    environment |= dict(pair.split("=", 1) for pair in taken["--env"])
    done = subprocess.run(["bash", script], env=environment, cwd=taken["--workdir"][0])
    sys.exit(done.returncode)


def uv(*words):
    note("uv", *words)
    assert words[:3] == ("pip", "install", "--system") and len(words) == 4
    if words[3].startswith("/"):
        assert Path(words[3]).is_file()


def hgpu(*words):
    note("hgpu", *words, "token" if os.environ.get("HF_TOKEN") else "no token")
    from hgpu import cli
    from hgpu.catalog.gpus import AttachedGpu
    from hgpu.commands import profiling

    card = AttachedGpu(0, os.environ["MACHINE_GPU"], "a card", "GPU-0", 24 * 2**30, "570")
    profiling.attached_gpus = lambda: [card]
    profiling.profile_vllm = partial(profiling.profile_vllm, python=os.environ["MACHINE_ENGINE"])
    sys.argv = ["hgpu", *words]
    cli.main()


if __name__ == "__main__":
    part, *words = sys.argv[1:]
    if part in FAULTS:
        print(FAULTS[part], file=sys.stderr)
        sys.exit(7)
    {"shutdown": shutdown, "aws": aws, "docker": docker, "uv": uv, "hgpu": hgpu}[part](*words)
