"""Options of `hgpu profile --on`, for machines that are rented for it."""

from typing import Annotated

import typer

On = Annotated[
    list[str] | None,
    typer.Option(help="Rent these machines for it, as aws:g6.xlarge,aws:g5.xlarge, and take them away."),
]
Bucket = Annotated[
    str | None, typer.Option(help="--on: bucket of S3, or BUCKET/PREFIX, through which results come home.")
]
Install = Annotated[
    str | None, typer.Option(help="--on: a wheel of hgpu, or pip's requirement, for the machines.")
]
Deadline = Annotated[
    int | None, typer.Option(help="--on: minutes after which a machine ends by itself; 120 by default.")
]
Region = Annotated[str | None, typer.Option(help="--on: where types are sold in several of the price book.")]
InstanceProfile = Annotated[
    str | None, typer.Option(help="--on: with the machines' role; hgpu-profile by default.")
]
Secret = Annotated[
    str | None,
    typer.Option(help="--on: name of a secret of Secrets Manager with HF_TOKEN, for gated models."),
]
Image = Annotated[str | None, typer.Option(help="--on: image with vLLM; the one of deployments by default.")]
SecurityGroup = Annotated[
    list[str] | None, typer.Option(help="--on: id; the network's closed default group otherwise.")
]
Subnet = Annotated[str | None, typer.Option(help="--on: id; one of the default network otherwise.")]
Poll = Annotated[float | None, typer.Option(min=0.01, help="--on: seconds between looks; 15 by default.")]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="--on: only take away machines that are past their deadline.")
]
Yes = Annotated[bool, typer.Option("--yes", help="--on: go ahead without asking.")]
