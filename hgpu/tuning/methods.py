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
from hgpu.tuning.lamda_peft import LamdaConfig


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


def spectral_ranks(layers: dict[str, nn.Linear], mean_rank: float) -> dict[str, int]:
    """Return LaMDA++'s rank of each layer, from the singular values of its weight."""
    spectra = {
        name: np.linalg.svd(layer.weight.detach().float().cpu().numpy(), compute_uv=False)
        for name, layer in layers.items()
    }
    return allocate_ranks(spectra, mean_rank)


def adapt(model: nn.Module, job: TuneJob) -> tuple[nn.Module, dict[str, int]]:
    """Return the model to train and the rank of each adapted layer (none for a full fine-tune).

    Raises UnknownName and InputError where targets or ranks don't fit the model.
    """
    if job.method is Method.FULL:
        return model, {}
    layers = targeted(model, job.targets)
    ranks = dict.fromkeys(layers, job.rank)
    if job.rank_allocation == "energy":
        ranks = spectral_ranks(layers, job.rank)
    for name, layer in layers.items():
        check_rank(ranks[name], layer.weight.shape, name)
    return get_peft_model(model, _config(job, ranks)), ranks


def _config(job: TuneJob, ranks: dict[str, int]) -> LoraConfig | LamdaConfig:
    pattern = {name: rank for name, rank in ranks.items() if rank != job.rank}
    shared: dict[str, Any] = {"r": job.rank, "target_modules": list(job.targets), "rank_pattern": pattern}
    if job.method is Method.LORA:
        alphas = {name: job.alpha * rank / job.rank for name, rank in pattern.items()}
        return LoraConfig(**shared, lora_alpha=job.alpha, alpha_pattern=alphas)
    return LamdaConfig(**shared)


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
