"""The published placement of a job's offloaded tensors, beside the shortest that there is."""

from hgpu.artifacts.payloads.job import PlacementGap
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.training_tensors import TrainingShape
from hgpu.latency.offloaded_step import Devices
from hgpu.latency.training_memory import host_tensors
from hgpu.latency.training_time import hardware_of
from hgpu.solvers.job_ways import Way, training_of
from hgpu.solvers.tier_milp import compared
from hgpu.specs.finetune_job import Finetune


def placement_gap(finetune: Finetune, way: Way) -> PlacementGap | None:
    """Return how much longer a step is by the published rule than by the exact placement; None for one tier.

    Both by the time model of `hgpu.latency.offloaded_step`, over one optimizer step of a GPU's whole batch.
    """
    if way.placement is None or len(way.placement.tiers) < 2:
        return None
    training, variant, gpu = training_of(finetune), way.variant, resolve_gpu(way.offer.gpu)
    hardware = hardware_of(gpu, finetune.dtype, way.machines, None)
    shape = TrainingShape(
        params=training.model.total_params,
        layers=training.model.layers,
        hidden_size=training.model.hidden_size,
        batch=variant.micro_batch * way.accumulation,
        context_tokens=training.context,
        devices=variant.dp,
        attention_flops_per_pair=training.model.attention_flops_per_pair,
    )
    link = hardware.efficiency.link * gpu.host_link_bytes_per_s
    devices = Devices(hardware.flops_per_s, link)
    found = compared(host_tensors(training, variant), way.placement.tiers, shape, devices)
    assert found.rule_s is not None  # the way has its placement
    return PlacementGap(rule_step_s=found.rule_s, exact_step_s=found.best.step_s, proven=found.best.proven)
