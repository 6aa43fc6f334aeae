"""Options of the commands that deploy, watch and take down."""

from pathlib import Path
from typing import Annotated

import typer

# Where a target is.
Namespace = Annotated[str | None, typer.Option(help="Of Kubernetes; default where none is given.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig; the current by default.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="File; kubectl's own by default.")]
Region = Annotated[list[str] | None, typer.Option(help="aws: look here too; needed where the state is lost.")]
Watched = Annotated[str, typer.Option(help="Where: local, kubernetes, aws.")]
Target = Annotated[
    str, typer.Option(help="Where to: local, kubernetes, aws; with --dry-run also lws, aibrix, sky, rlinf.")
]

# Of any launch.
LoadFormat = Annotated[
    str | None, typer.Option(help="auto where none is given, or dummy for random weights.")
]
Timeout = Annotated[
    float | None, typer.Option(min=1.0, help="Seconds to wait for health; 1200 where none are given.")
]
KeepOnFailure = Annotated[
    bool, typer.Option("--keep-on-failure", help="Leave what runs for inspection where the rest fails.")
]
TwoEngines = Annotated[
    bool,
    typer.Option("--two-engines", help="local: one engine for prompts and one that decodes in each place."),
]

# Of what is rendered, and of its files.
Name = Annotated[str | None, typer.Option(help="Of the deployment; the service's by default.")]
Image = Annotated[str | None, typer.Option(help="Container image with vLLM; vLLM's own by default.")]
Secret = Annotated[
    str | None, typer.Option(help="Name of the target's secret with HF_TOKEN and VLLM_API_KEY; hgpu-secrets.")
]
Autoscale = Annotated[bool, typer.Option("--autoscale", help="Add an autoscaler to each pool.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Launch nothing: write the target's objects to --out.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for a dry run; new or empty.")]
Crds = Annotated[Path | None, typer.Option(help="Folder of custom resource definitions to check against.")]

# Of jobs.
Command = Annotated[
    str | None,
    typer.Option(help="Of a job: what runs instead of hgpu tune, or starts a loop."),
]
Claim = Annotated[
    str | None, typer.Option(help="Of a job: Kubernetes' volume claim for data and results; hgpu-data.")
]

# Of one target's launches.
ForceConflicts = Annotated[
    bool, typer.Option("--force-conflicts", help="Take over fields that others manage in the cluster.")
]
Yes = Annotated[bool, typer.Option("--yes", help="aws: go ahead without asking.")]
ShowDiff = Annotated[bool, typer.Option("--diff", help="aws: show what would change, and stop.")]
NoReplan = Annotated[
    bool, typer.Option("--no-replan", help="aws: stop where an offer can't be had; don't plan anew.")
]
SecurityGroup = Annotated[
    list[str] | None, typer.Option(help="aws: id; the network's closed default group otherwise.")
]
Subnet = Annotated[str | None, typer.Option(help="aws: id; one of the default network otherwise.")]
PrivateAddresses = Annotated[
    bool, typer.Option("--private-addresses", help="aws: hgpu runs inside the network; ask the engines.")
]
