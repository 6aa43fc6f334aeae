"""A model and its tokenizer from a folder or Hugging Face, with errors a user can act on."""

from dataclasses import replace
from typing import Any

from hgpu.core.errors import InputError
from hgpu.core.gpu import DType
from hgpu.core.training import Method, Sharding
from hgpu.tuning.dataset import Sequences, fill, pack
from hgpu.tuning.documents import Text, read_documents
from hgpu.tuning.job import TRAINED, TuneJob
from hgpu.tuning.tokens import encode, encode_example


def with_dtype(job: TuneJob) -> TuneJob:
    """Return the job with the model's own number format where the spec gives none.

    Raises InputError where that can't be trained in, or the context is longer than the model reads.
    """
    from transformers import AutoConfig

    config = _loaded(AutoConfig, "config", job.model)
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and job.context > most:
        raise InputError(
            f"a context of {job.context} tokens is too long", f"{job.model} reads {most}", "lower `context`"
        )
    if job.dtype is not None:
        return job
    stored = str(config.dtype or "torch.float32").removeprefix("torch.")
    own = {"float32": DType.FP32, "bfloat16": DType.BF16}.get(stored)
    if own is None:
        raise InputError(
            f"hgpu tune doesn't train in {stored}",
            f"that is how {job.model} is stored, and the spec gives no `dtype`",
            f"set dtype to {' or '.join(TRAINED)}",
        )
    return replace(job, dtype=own)


def load_sequences(job: TuneJob) -> Sequences:
    """Return the job's data in the tokens of its model. Raises InputError for what can't be used."""
    from transformers import AutoTokenizer

    documents = read_documents(job.data)
    tokenizer = _loaded(AutoTokenizer, "tokenizer", job.model)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {job.model} can't end a text",
            "it has no eos_token",
            "set one in its tokenizer_config.json",
        )
    end: int = tokenizer.eos_token_id
    texts = [encode(tokenizer, document.text) for document in documents if isinstance(document, Text)]
    if texts or not documents:
        return pack(texts, end, job.context)
    examples = [encode_example(tokenizer, one) for one in documents if not isinstance(one, Text)]
    return fill(examples, end, job.context)


def load_model(job: TuneJob, device: str) -> Any:
    """Return the model on the device, or on the CPU where it will be sharded, as one device may not hold it.

    It is in fp32 where training is mixed, else in the job's format.

    Raises InputError where it can't be loaded, or some of its weights are missing.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # hgpu shows its own
    narrow = job.dtype is DType.BF16 and not mixed(job)
    options = {"dtype": torch.bfloat16 if narrow else torch.float32, "output_loading_info": True}
    model, told = _loaded(AutoModelForCausalLM, "model", job.model, **options)
    if missing := sorted(told["missing_keys"]):
        raise InputError(
            f"{job.model} lacks weights",
            f"it has no {', '.join(missing[:3])}{' and others' if missing[3:] else ''}",
            "give a model whose weights are all there",
        )
    if job.sharding is Sharding.NONE:
        model.to(device)
    if job.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def mixed(job: TuneJob) -> bool:
    """Tell whether weights and Adam states are fp32 while the passes compute in 16 bits."""
    return job.method is Method.FULL and job.precision == "mixed" and job.dtype is DType.BF16


def _loaded(kind: Any, noun: str, name: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, SafetensorError) as error:  # files that are missing, unknown or damaged
        raise InputError(
            f"can't load the {noun} of {name}",
            str(error).strip().partition("\n")[0][:300],
            "give a Hugging Face id that can be downloaded, or a folder with weights and tokenizer",
        ) from error
