"""Makes what `run.py` fine-tunes: a small Llama trained on the code of Python's standard library.

    OMP_NUM_THREADS=1 python benchmarks/lamda/pretrain.py FOLDER

Also writes what it is tuned on, none of which it has seen: `idlelib.jsonl`, the code of Python's own editor
(a mild shift), and `topics.jsonl`, the prose of the language reference that `help()` shows (a hard one).
"""

import argparse
import json
import sys
import sysconfig
import time
from importlib import import_module
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, CONTEXT, BATCH, PEAK_RATE, SEED = 2048, 128, 16, 2e-3, 0
SKIPPED = {"site-packages", "test", "tests", "idlelib", "pydoc_data", "lib2to3", "ensurepip", "lib-dynload"}


def sources() -> list[str]:
    """The standard library's modules without its tests and without what is tuned on."""
    library = Path(sysconfig.get_path("stdlib"))
    paths = sorted(library.rglob("*.py"))
    kept = [path for path in paths if not SKIPPED & set(path.relative_to(library).parts[:-1])]
    return [path.read_text(encoding="utf-8", errors="replace") for path in kept]


def make_tokenizer(folder: Path, texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words) + "\n", encoding="utf-8")
    return tokenizer


def pretrain(folder: Path, hidden: int, layers: int, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = sources()
    tokenizer = make_tokenizer(folder, texts)
    ids = torch.tensor([token for text in texts for token in [*tokenizer.encode(text).ids, 1]])
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=hidden * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    print(f"{model.num_parameters():,} parameters", file=sys.stderr)
    learn(model, ids, steps, CONTEXT, BATCH, PEAK_RATE)
    model.save_pretrained(folder)
    write_tuned(folder)


def learn(
    model: Any,
    ids: torch.Tensor,
    steps: int,
    context: int,
    batch: int,
    peak_rate: float,
    halved: bool = False,
) -> None:
    """Train all of a model on random windows of a text; `halved` computes in bf16."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.95), weight_decay=0.1)
    rows = ids[: len(ids) // context * context].view(-1, context)
    print(f"{len(ids):,} tokens, {steps} steps", file=sys.stderr)
    began_s, order = time.monotonic(), torch.randperm(len(rows))
    for step in range(steps):
        rate = min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 + cos(pi * step / steps)) / 2)
        optimizer.param_groups[0]["lr"] = peak_rate * rate
        some = rows[order[[(step * batch + number) % len(rows) for number in range(batch)]]]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=halved):
            loss = model(input_ids=some, labels=some, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"{step} loss {loss.item():.3f} after {time.monotonic() - began_s:.0f} s", file=sys.stderr)


def write_tuned(folder: Path) -> None:
    """Write the texts to tune on."""
    topics = import_module("pydoc_data.topics").topics
    write_texts(folder / "topics.jsonl", [topics[name] for name in sorted(topics)])
    editor = sorted((Path(sysconfig.get_path("stdlib")) / "idlelib").glob("*.py"))
    write_texts(folder / "idlelib.jsonl", [path.read_text(encoding="utf-8") for path in editor])


def write_texts(path: Path, texts: list[str]) -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=900)
    given = parser.parse_args()
    pretrain(given.folder, given.hidden, given.layers, given.steps)
