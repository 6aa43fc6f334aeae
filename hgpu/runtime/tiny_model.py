"""A small Llama with a real tokenizer, made in a second: for trials and tests without a download.

It has no weights: engines load it with `load_format` "dummy". The default size takes some tens
of milliseconds a decode step on a CPU core.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

VOCABULARY = 4096
HEAD_SIZE = 64
CORPUS = ("argparse", "ast", "datetime", "decimal", "inspect", "pydoc", "socket", "typing", "zipfile")


def make_tiny_model(
    folder: Path, hidden_size: int = 768, layers: int = 10, max_context_tokens: int = 4096
) -> Path:
    """Write `config.json` and a byte-level BPE tokenizer into `folder`, and return it.

    `hidden_size` is a multiple of 64, the head size; the same arguments give the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(hidden_size, layers, max_context_tokens)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(folder)
    return folder


def _config(hidden_size: int, layers: int, max_context_tokens: int) -> dict[str, object]:
    heads = hidden_size // HEAD_SIZE
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": hidden_size * 8 // 3,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": next(kv for kv in (4, 3, 2, 1) if heads % kv == 0),
        "head_dim": HEAD_SIZE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": max_context_tokens,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_theta": 10000.0,
    }


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE tokenizer of `VOCABULARY` tokens, trained on parts of the standard library."""
    hf: Any = importlib.import_module("tokenizers")  # comes with vLLM; has no part in a plain install
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_source(name) for name in CORPUS), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words) + "\n", encoding="utf-8")


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]))
