"""LaMDA as a method of PEFT: `get_peft_model(model, LamdaConfig(...))` trains, saves, loads, merges.

Importing this module registers the method. PEFT has no way to add one from outside: its enumeration is
extended, so other releases than the one that was tried are refused.
"""

import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    PeftType,
    register_peft_method,
)
from torch import Tensor, nn

from hgpu.core.errors import InputError
from hgpu.tuning.lamda import Init, check_rank, decompose
from hgpu.tuning.lamda_factors import LamdaFactors

TRIED = "0.21"
NAME = "lamda"


@dataclass
class LamdaConfig(PeftConfig):  # type: ignore[misc]  # peft is not followed by mypy
    """What LaMDA adapts, and how.

    `r` is the rank, `rank_pattern` other ranks for modules whose name ends with a key (a regular expression):
    `hgpu.tuning.methods.spectral_ranks` finds those of LaMDA++. `init` and `svd_iterations` are those of
    `hgpu.tuning.lamda.decompose`. The rest is as in PEFT's LoraConfig.
    """

    r: int = 32
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    init: str = Init.BALANCED.value
    svd_iterations: int | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(NAME.upper())
        self.init = Init(self.init).value
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)

    def rank_of(self, key: str) -> int:
        """Return the rank of the module called `key`."""
        found = (rank for name, rank in self.rank_pattern.items() if re.match(rf"(.*\.)?({name})$", key))
        return next(found, self.r)


class LamdaLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # torch and peft are not followed
    """A linear layer and its adapters."""

    adapter_layer_names = ("lamda_factors",)
    other_param_names = ("rank",)

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lamda_factors = nn.ModuleDict()
        self.rank: dict[str, int] = {}
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter: str, config: LamdaConfig, key: str) -> None:
        """Add an adapter. Raises InputError where its rank doesn't fit."""
        weight = self.get_base_layer().weight
        rank = config.rank_of(key)
        check_rank(rank, weight.shape, key)
        out, inner = weight.shape
        factors = LamdaFactors(rank, inner, out, device=weight.device, dtype=torch.float32)
        self.lamda_factors[adapter] = factors
        if not factors.s.is_meta:  # what is about to be loaded needs no start
            self.start(adapter, config)
        self.rank[adapter] = rank
        self.set_adapter(self.active_adapters)

    def start(self, adapter: str, config: LamdaConfig) -> None:
        """Give an adapter the singular vectors of the weight."""
        factors = self.lamda_factors[adapter]
        values = self.get_base_layer().weight.detach().float().cpu().numpy()
        factors.start(decompose(values, factors.rank, Init(config.init), config.svd_iterations))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the base and the active adapters make of x."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for adapter in self.active_adapters:
            if adapter in self.lamda_factors:
                y = y + self.lamda_factors[adapter](x).to(y.dtype)
        return y

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return what merging an adapter adds to the weight."""
        delta: Tensor = self.lamda_factors[adapter].delta()
        return delta

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters, by default the active ones, to the base's weight.

        Raises ValueError where `safe_merge` is asked for and the sum isn't finite.
        """
        weight = self.get_base_layer().weight
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.lamda_factors:
                merged = weight.data + self.get_delta_weight(adapter).to(weight.dtype)
                if safe_merge and not torch.isfinite(merged).all():
                    raise ValueError(f"NaNs detected in the merged weights: adapter {adapter} is broken")
                weight.data = merged
                self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Take all merged adapters from the base's weight."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        weight = self.get_base_layer().weight
        while self.merged_adapters:
            weight.data -= self.get_delta_weight(self.merged_adapters.pop()).to(weight.dtype)

    def _move_adapter_to_device_of_base_layer(self, adapter: str, device: torch.device | None = None) -> None:
        """Move without a cast: factors stay in fp32 over a base of 16 bits."""
        if adapter in self.lamda_factors:
            self.lamda_factors[adapter].to(device or self.get_base_layer().weight.device)


class LamdaModel(BaseTuner):  # type: ignore[misc]  # peft is not followed by mypy
    """A model whose targeted linear layers are LamdaLayers."""

    prefix = "lamda_"
    tuner_layer_cls = LamdaLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        peft_config: LamdaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, LamdaLayer) else LamdaLayer(_linear(target, current_key))
        layer.update_layer(adapter_name, peft_config, current_key)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)


def _linear(module: nn.Module, key: str) -> nn.Linear:
    if type(module) is nn.Linear and module.weight.is_floating_point():
        return module
    raise InputError(
        f"LaMDA can't adapt {key}",
        f"it is a {type(module).__name__}, and only plain torch.nn.Linear layers have a weight to decompose",
        "leave it out of target_modules",
    )


def _register() -> None:
    """Make the method known to PEFT. Raises InputError under a release that wasn't tried."""
    if NAME.upper() in PeftType.__members__:
        return
    if not peft.__version__.startswith(f"{TRIED}."):
        raise InputError(
            f"LaMDA isn't registered with PEFT {peft.__version__}",
            f"its list of methods is extended in a way that was tried with {TRIED} only",
            f"pip install 'peft=={TRIED}.*'",
        )
    member = str.__new__(PeftType, NAME.upper())
    member._name_ = member._value_ = NAME.upper()
    type.__setattr__(PeftType, NAME.upper(), member)
    PeftType._member_names_.append(NAME.upper())
    PeftType._member_map_[NAME.upper()] = member
    PeftType._value2member_map_[NAME.upper()] = member
    register_peft_method(name=NAME, config_cls=LamdaConfig, model_cls=LamdaModel, prefix=LamdaModel.prefix)


_register()
