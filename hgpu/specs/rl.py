"""The spec file of `kind: rl`: a reinforcement-learning loop, what its components take, and GPUs for them."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hgpu.artifacts.manifest import Strict
from hgpu.specs.serve import Count, OffersSpec, Positive

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Role = Literal["env", "rollout", "reward", "inference", "critic", "actor"]
LOOP = ("env", "rollout", "actor")


class Workflow(StrEnum):
    """`pipeline`: rollout → … → actor over batches; `embodied`: simulator and policy, then training."""

    PIPELINE = "pipeline"
    EMBODIED = "embodied"


class RlMode(StrEnum):
    """How components share GPUs: all the same, none, or some."""

    COLLOCATED = "collocated"
    DISAGGREGATED = "disaggregated"
    HYBRID = "hybrid"


class Pay(StrEnum):
    """What of a pool costs money: the nodes that are used, single GPUs, or the pool whatever is used."""

    NODES = "nodes"
    GPUS = "gpus"
    POOL = "pool"


class Law(StrEnum):
    """How seconds scale: as measured, or from one measured point by an estimate of RLinf's placement tool."""

    MEASURED = "measured"
    RLINF_TRAINING = "rlinf_training"
    RLINF_GENERATION = "rlinf_generation"


class ComponentSpec(Strict):
    """A component of the loop and its profile: seconds by GPU type and count.

    In an embodied loop the counts of `env` and `rollout` are environments in a process, in one stage; all
    others are GPUs, and the seconds those of an iteration. It runs as GPUs / `model_parallel` processes,
    whose number must divide `divides`. RLinf's estimate of generation needs `requests` and
    `running_requests`.
    """

    name: Role
    seconds: dict[str, dict[Count, Positive]] = Field(default_factory=dict)
    law: Law = Law.MEASURED
    model_parallel: Count = 1
    divides: Count | None = None
    requests: Count | None = None
    running_requests: Count | None = None
    source: str = ""

    @model_validator(mode="after")
    def _law_has_what_it_needs(self) -> "ComponentSpec":
        given = (self.requests is not None) + (self.running_requests is not None)
        if given != (2 if self.law is Law.RLINF_GENERATION else 0):
            raise ValueError("requests and running_requests belong to the law rlinf_generation, both of them")
        return self


class PoolSpec(Strict):
    """GPUs of one type that may be used.

    Where no price is given it is that of the cheapest offer; a node then has as many GPUs as the offer.
    """

    gpu: str
    gpus: Count
    gpus_per_node: Count | None = None
    usd_per_gpu_hour: NotNegative | None = None
    pay: Pay = Pay.NODES


class RlSpec(Strict):
    """A loop to place.

    - `workflow` pipeline: `components` in the order of data over `batches` (M) an iteration; embodied: env,
      rollout and actor, with `steps` (H) of `envs` (E) environments; `profiled` says whether seconds of env
      and rollout are of a step or of all steps of an iteration;
    - `stages`: numbers of stages (k) to consider; each has a multiple of `group_size` environments a process;
    - `switch_s`: what an iteration loses where training shares GPUs; `sync_s`: where weights go to others;
    - `profile`: a CSV or JSON file of profiles, for components without `seconds`.
    """

    kind: Literal["rl"]
    name: Annotated[str, Field(min_length=1, pattern=r"^[\w.-]+$")] = "loop"
    workflow: Workflow
    components: Annotated[list[ComponentSpec], Field(min_length=1, max_length=4)]
    profile: str | None = None

    batches: Count | None = None
    steps: Count | None = None
    envs: Count | None = None
    group_size: Count = 1
    profiled: Literal["step", "rollout"] = "step"
    stages: Annotated[list[Count], Field(default=[1, 2], min_length=1)]
    switch_s: NotNegative = 0.0
    sync_s: NotNegative = 0.0

    modes: Annotated[list[RlMode], Field(default=list(RlMode), min_length=1)]
    pools: Annotated[list[PoolSpec], Field(min_length=1)]
    offers: OffersSpec = OffersSpec()

    objective: Literal["cost", "time"] = "cost"
    iterations: Count | None = None
    deadline_h: Positive | None = None
    budget_usd: Positive | None = None

    @model_validator(mode="after")
    def _components_of_the_workflow(self) -> "RlSpec":
        names = [component.name for component in self.components]
        if len(set(names)) < len(names):
            raise ValueError("two components have the same name")
        if self.workflow is Workflow.EMBODIED and sorted(names) != sorted(LOOP):
            raise ValueError(
                f"an embodied loop has the components {', '.join(LOOP)}; it has {', '.join(names)}"
            )
        if self.workflow is Workflow.PIPELINE and ("env" in names or names[-1] != "actor" or len(names) < 2):
            raise ValueError(
                "a pipeline has components in the order of data, the last of them actor, and no env"
            )
        return self

    @model_validator(mode="after")
    def _sizes_of_the_workflow(self) -> "RlSpec":
        embodied = self.workflow is Workflow.EMBODIED
        if embodied != (self.steps is not None and self.envs is not None) or embodied == (
            self.batches is not None
        ):
            raise ValueError("an embodied loop needs steps and envs, and a pipeline batches")
        if (self.deadline_h or self.budget_usd) and self.iterations is None:
            raise ValueError("deadline_h and budget_usd are of all iterations: say how many")
        if len({pool.gpu for pool in self.pools}) < len(self.pools):
            raise ValueError("two pools have the same GPU type")
        return self

    @property
    def ordered(self) -> list[ComponentSpec]:
        """Components in the order of data; an embodied loop's are env, rollout, actor."""
        if self.workflow is Workflow.PIPELINE:
            return list(self.components)
        return sorted(self.components, key=lambda component: LOOP.index(component.name))
