"""Measured kernel times of a model's layers, from the tables of aiconfigurator-core 0.12.

Everything that knows the package is here: which GPU types and formats its tables hold, how it is
given a model (its own copy of `config.json`, nothing is downloaded), and what it raises.
"""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hgpu.catalog.models import ALIASES, bundled_models
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType, GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.step import StepBatch

PACKAGE = "aiconfigurator-core"
SERIES = "0.12."  # what follows it on the index is a stub that downloads from elsewhere
INSTALL = "pip install 'hgpu[silicon]'"
PADDINGS = (8, 16)  # tokens
MOST_OPS = 256  # more kernels than any model has in a layer list

# The package also knows l4, a30, a100_pcie and h100_pcie, but only their data sheets: not here.
SYSTEMS = {
    "A100-80GB": "a100_sxm",
    "L40S": "l40s",
    "H100-SXM": "h100_sxm",
    "H200": "h200_sxm",
    "B200": "b200_sxm",
    "RTX-PRO-6000": "rtx_pro_6000_server",
}
DEGREES = (1, 2, 4, 8)  # all-reduces were timed on so many devices
LINEAR_FORMATS = {DType.BF16: "bfloat16", DType.FP16: "bfloat16", DType.FP8: "fp8", DType.FP4: "nvfp4"}
EXPERT_FORMATS = LINEAR_FORMATS | {DType.INT4: "int4_wo"}
KV_FORMATS = {DType.BF16: "bfloat16", DType.FP16: "bfloat16", DType.FP8: "fp8"}


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one model on one system: places in the package's list of a prefill step."""

    engine: Any
    linear: tuple[int, ...]
    head: tuple[int, ...]
    prefill_attention: tuple[int, ...]
    decode_attention: tuple[int, ...]
    tables: str

    def step_s(self, batch: StepBatch) -> float:
        """Return the kernel seconds of one step."""
        return sum(seconds for seconds, _ in self.parts(batch))

    def parts(self, batch: StepBatch) -> Iterator[tuple[float, str]]:
        """Return the seconds of each kernel in a step, with where they come from.

        A kernel of few tokens is taken to be no slower than at 8 and 16 tokens: it could be
        padded to those, and the tables hold stray slow points there (B200 in FP8: 2.6 times the
        neighbours at 1, 2 and 4 tokens, which engines don't show).
        """
        tokens, seqs = round(batch.tokens), round(batch.seqs)
        wider = [self._context(self.linear, 1, n, 0, n) for n in PADDINGS if n > tokens]
        yield from map(min, zip(self._context(self.linear, 1, tokens, 0, tokens), *wider, strict=True))
        yield from self._context(self.head, 1, tokens, 0, seqs)
        if batch.prefill_tokens:
            prompts = max(1, round(batch.prefill_seqs))
            new = max(1, round(batch.prefill_tokens / prompts))
            context = round(batch.prefill_context_tokens / prompts)
            yield from self._context(self.prefill_attention, prompts, new, context, None)
        if batch.decode_seqs:
            decodes = round(batch.decode_seqs)
            length = round(batch.decode_context_tokens / decodes) + 1
            places = list(self.decode_attention)
            yield from _seconds(self.engine.evaluate_generation_ops(places, batch_size=decodes, s=length))

    def _context(
        self, places: tuple[int, ...], prompts: int, new: int, context: int, tokens: int | None
    ) -> list[tuple[float, str]]:
        return _seconds(
            self.engine.evaluate_context_ops(
                list(places), batch_size=prompts, s=new, prefix=context, x=tokens
            )
        )


def kernels(model: ModelSpec, source: str, gpu: GpuType, tp: int) -> Kernels:
    """Return the kernels of `model` on `tp` devices of a type, ready to be asked for step times."""
    release = _release()
    system = _system(gpu, tp)
    raw = _config_of(model, source)
    formats = _formats(model, raw)
    with speaking_of(f"{model.name} on {tp} × {gpu.name}"):
        return _compiled(json.dumps(_shape_of(raw), sort_keys=True), system, tp, formats, release)


@cache
def _compiled(
    config: str, system: str, tp: int, formats: tuple[tuple[str, str], ...], release: str
) -> Kernels:
    handle = import_module("aiconfigurator_core.sdk.engine").EngineHandle
    tables = import_module("aiconfigurator_core.sdk.perf_database")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(config, encoding="utf-8")
        engine = handle.compile(
            folder, system, "vllm", tp_size=tp, moe_tp_size=tp, moe_ep_size=1, **dict(formats)
        )
    prefill, decode = _names(engine.evaluate_context_ops), _names(engine.evaluate_generation_ops)
    attention = tuple(place for place, name in enumerate(prefill) if "attention" in name)
    head = tuple(place for place, name in enumerate(prefill) if "logits" in name)
    return Kernels(
        engine=engine,
        linear=tuple(place for place in range(len(prefill)) if place not in (*attention, *head)),
        head=head,
        prefill_attention=attention,
        decode_attention=tuple(place for place, name in enumerate(decode) if "attention" in name),
        tables=f"{PACKAGE} {release} tables {system}/vllm "
        + str(tables.resolve_query_version(system, "vllm", "current")),
    )


def _names(evaluate: Any) -> list[str]:
    """Return the name of each kernel in a list, found out by asking for one after the other."""
    names: list[str] = []
    while len(names) < MOST_OPS:
        try:
            rows = evaluate([len(names)], batch_size=1, s=16)
        except (IndexError, ValueError) as error:
            if "index" in str(error).lower() or "range" in str(error).lower():
                return names
            raise
        names.append(rows[0][0] if rows else "")
    return names


def _seconds(rows: list[tuple[str, float, float, str]]) -> list[tuple[float, str]]:
    """Return the seconds and the origin of rows of (name, milliseconds, energy, origin)."""
    return [(milliseconds / 1e3, origin) for _, milliseconds, _, origin in rows]


def _release() -> str:
    """Return the installed version of the tables; raises InputError where there is none to use."""
    try:
        found = version(PACKAGE)
        import_module("aiconfigurator_core")
    except (PackageNotFoundError, ImportError) as error:
        raise InputError("the kernel tables aren't installed", f"{PACKAGE}: {error}", INSTALL) from error
    if not found.startswith(SERIES):
        raise InputError(
            f"{PACKAGE} {found} can't be used",
            f"hgpu reads the tables that {SERIES}x ships; later releases download theirs from elsewhere",
            INSTALL,
        )
    return found


def _system(gpu: GpuType, tp: int) -> str:
    if gpu.name not in SYSTEMS:
        raise InputError(
            f"there are no measured kernels of {gpu.name}",
            f"{PACKAGE} {SERIES}x holds {', '.join(SYSTEMS)}",
            "profile the GPU type itself, or use --profiler estimate",
        )
    if tp not in DEGREES:
        raise InputError(
            f"there are no measured kernels of {tp} × {gpu.name}",
            f"all-reduces were timed on {', '.join(map(str, DEGREES))} devices",
            "use one of those tensor parallel degrees, or --profiler estimate",
        )
    return SYSTEMS[gpu.name]


def _config_of(model: ModelSpec, source: str) -> dict[str, Any]:
    """Return the `config.json` of the model, from its folder or from hgpu's bundled ones."""
    path = Path(source).expanduser()
    file: Any = path if path.is_file() else path / "config.json"
    if not file.is_file():
        identity = ALIASES.get(model.name, (model.name, None))[0]
        file = bundled_models().get(identity)
    if file is None:
        raise InputError(
            f"there is no config.json of {model.name}",
            f"'{source}' is neither a folder that holds one nor a model that comes with hgpu",
            "give the folder of the model, or use --profiler estimate",
        )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def _shape_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config as the package reads it: without formats, which hgpu's ModelSpec decides.

    Mistral's layers are Llama's where no window limits them; the package knows only the latter's name.
    """
    dropped = ("quantization_config", "compression_config")
    shape = {key: value for key, value in config.items() if key not in dropped}
    if shape.get("architectures") == ["MistralForCausalLM"] and not shape.get("sliding_window"):
        shape |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    return shape


def _formats(model: ModelSpec, config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the package's names of the formats of linear layers, experts, KV cache and attention."""
    stored = config.get("quantization_config") or {}
    linear = _named(LINEAR_FORMATS, _linear_dtype(model), "linear layers", model)
    experts = _named(EXPERT_FORMATS, model.weight_dtype, "experts", model) if model.is_moe else "bfloat16"
    if experts == "nvfp4" and stored.get("quant_method") == "mxfp4":
        experts = "w4a16_mxfp4"
    return (
        ("gemm_quant_mode", _fp8_linear(stored) if linear == "fp8" else linear),
        ("moe_quant_mode", "fp8_block" if experts == "fp8" and _in_blocks(stored) else experts),
        ("kvcache_quant_mode", _named(KV_FORMATS, model.kv_dtype, "the KV cache", model)),
        ("fmha_quant_mode", "bfloat16"),
    )


def _fp8_linear(stored: dict[str, Any]) -> str:
    """Return which FP8 kernels a checkpoint runs: scaled in blocks, or by activation scales.

    Scales worked out at every step (dynamic) cost another kernel; static ones come with the
    checkpoint, and are taken where it doesn't say.
    """
    if _in_blocks(stored):
        return "fp8_block"
    groups = (stored.get("config_groups") or {}).values()
    dynamic = any((group.get("input_activations") or {}).get("dynamic") for group in groups)
    return "fp8" if dynamic or stored.get("activation_scheme") == "dynamic" else "fp8_static"


def _in_blocks(stored: dict[str, Any]) -> bool:
    return "weight_block_size" in stored


def _linear_dtype(model: ModelSpec) -> DType:
    """Return the format outside the experts: 16 bits where only those are quantised (gpt-oss)."""
    return DType.BF16 if model.dense_bits > 12 else model.weight_dtype


def _named(names: dict[DType, str], dtype: DType, what: str, model: ModelSpec) -> str:
    if dtype not in names:
        raise InputError(
            f"there are no measured kernels for {model.name}: {what} in {dtype}",
            f"the tables hold {', '.join(names)}",
            "use another dtype, or --profiler estimate",
        )
    return names[dtype]


@contextmanager
def speaking_of(what: str) -> Iterator[None]:
    """Turn what the package raises into an InputError, and keep its log off stderr."""
    logger = logging.getLogger("aiconfigurator_core")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (ValueError, RuntimeError, KeyError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"there are no measured kernels for {what}",
            why,
            "use another model, format or degree, or --profiler estimate",
        ) from error
    finally:
        logger.setLevel(level)
