"""From a model and a job to a model of which the right part is trained, and the state of that part."""

from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from hgpu.core.errors import UnknownName
from hgpu.specs.finetune import Method
from hgpu.tuning.job import TuneJob
from hgpu.tuning.lamda import allocate_ranks, check_rank
from hgpu.tuning.lamda_peft import LamdaConfig, LamdaLayer
from hgpu.tuning.ranks import ALONE, Ranks

SVD_ITERATIONS = 4  # 0.2 s of a core for a weight of 4096 × 4096, where the exact one takes 24


def targeted(model: nn.Module, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """Return the linear layers whose name is, or ends with, one of `targets`.

    Raises UnknownName for a target that no linear layer has.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = {
        name: module
        for name, module in linear.items()
        if any(f".{name}".endswith(f".{target}") for target in targets)
    }
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in found):
            raise UnknownName("target module", target, {name.rpartition(".")[2] for name in linear})
    return found


def spectral_ranks(layers: dict[str, nn.Linear], mean_rank: float, ranks: Ranks = ALONE) -> dict[str, int]:
    """Return LaMDA++'s rank of each layer, from the singular values of its weight."""
    mine = list(layers.items())[ranks.number :: ranks.count]
    spectra = {
        name: np.linalg.svd(layer.weight.detach().float().cpu().numpy(), compute_uv=False)
        for name, layer in mine
    }
    return allocate_ranks(ranks.united(spectra), mean_rank)


def adapt(model: nn.Module, job: TuneJob, ranks: Ranks = ALONE) -> tuple[nn.Module, dict[str, int]]:
    """Return the model to train and the rank of each adapted layer (none for a full fine-tune).

    Several processes decompose some of the weights each. Raises UnknownName and InputError where targets or
    ranks don't fit the model.
    """
    if job.method is Method.FULL:
        return model, {}
    layers = targeted(model, job.targets)
    chosen = dict.fromkeys(layers, job.rank)
    if job.rank_allocation == "energy":
        chosen = spectral_ranks(layers, job.rank, ranks)
    for name, layer in layers.items():
        check_rank(chosen[name], layer.weight.shape, name)
    config = _config(job, chosen)
    shared = job.method is Method.LAMDA and ranks.count > 1
    adapted = get_peft_model(model, config, low_cpu_mem_usage=shared)  # leaves out all decompositions
    if shared:
        _decompose(adapted, config, ranks)
    return adapted, chosen


@torch.no_grad()  # type: ignore[untyped-decorator]
def _decompose(model: PeftModel, config: LamdaConfig, ranks: Ranks) -> None:
    """Start all factors: each process decomposes its share of the weights, and tells the others."""
    layers = [module for module in model.modules() if isinstance(module, LamdaLayer)]
    for layer in layers:
        layer.lamda_factors["default"].to_empty(device=layer.get_base_layer().weight.device)
    for layer in layers[ranks.number :: ranks.count]:
        layer.start("default", config)
    for number, layer in enumerate(layers):
        ranks.spread(layer.lamda_factors["default"].state_dict().values(), number % ranks.count)


def _config(job: TuneJob, ranks: dict[str, int]) -> LoraConfig | LamdaConfig:
    pattern = {name: rank for name, rank in ranks.items() if rank != job.rank}
    shared: dict[str, Any] = {"r": job.rank, "target_modules": list(job.targets), "rank_pattern": pattern}
    if job.method is Method.LORA:
        alphas = {name: job.alpha * rank / job.rank for name, rank in pattern.items()}
        return LoraConfig(**shared, lora_alpha=job.alpha, alpha_pattern=alphas)
    return LamdaConfig(**shared, svd_iterations=SVD_ITERATIONS)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: the adapter, or the whole model (tied tensors once)."""
    if isinstance(model, PeftModel):
        return dict(get_peft_model_state_dict(model, save_embedding_layers=False))
    once = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: tensor for name, tensor in model.state_dict().items() if name in once}


def set_trained_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `trained_state` gave."""
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, state)
    else:
        model.load_state_dict(state, strict=False)  # what is tied is missing


def trained_now(model: nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that have gradients now."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
