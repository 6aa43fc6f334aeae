"""LaMDA beside LoRA as their papers compare them: a classifier's head on the model, trained with the adapter.

    OMP_NUM_THREADS=1 python benchmarks/lamda/classify.py FOLDER

FOLDER has a model (`pretrained.py FOLDER --steps 0`) and the posts of `newsgroups.py`. The head is a linear
layer on the state of the last token. LoRA and LaMDA are tried with as many settings on seed 0; the one that
is best on the validation posts is run on other seeds, and judged on the test posts, by which nothing was
chosen. *lora-few* is LoRA with no more parameters than LaMDA trains on average. Counts include the head.
Finished runs are kept in `classify.runs.jsonl`, so that a second call goes on, and a second process with
`--only ARM` may help.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from newsgroups import QUESTION
from peft import LoraConfig, get_peft_model
from run import TARGETS, Journal, median, run_key
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hgpu.tuning.dataset import numbers_of_step
from hgpu.tuning.lamda_factors import freeze_for_step
from hgpu.tuning.lamda_peft import LamdaConfig
from hgpu.tuning.methods import SVD_ITERATIONS, trained_now
from hgpu.tuning.schedule import rate_at

BATCH, STEPS, WARMUP, SEEDS = 16, 120, 10, (1, 2, 3, 4, 5)
Settings = dict[str, Any]
GRID: dict[str, list[Settings]] = {
    "lora": [{"rank": 32, "learning_rate": rate} for rate in (5e-4, 1e-3, 1.4e-3, 2e-3)],
    "lamda": [
        {"rank": 32, "freeze_share": 0.3, "learning_rate": rate} for rate in (1e-3, 1.4e-3, 2e-3, 4e-3)
    ],
    "lora-few": [{"rank": 3, "learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)],
}


@dataclass(frozen=True)
class Posts:
    """Posts in tokens, and the number of each one's newsgroup."""

    tokens: list[list[int]]
    groups: list[int]

    def __len__(self) -> int:
        return len(self.tokens)

    def inputs(self, numbers: list[int], filling: int) -> dict[str, torch.Tensor]:
        """Return some posts, filled to the longest, as the model takes them."""
        chosen = [self.tokens[number] for number in numbers]
        width = max(map(len, chosen))
        rows = [post + [filling] * (width - len(post)) for post in chosen]
        mask = [[1] * len(post) + [0] * (width - len(post)) for post in chosen]
        return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}

    def labels(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor([self.groups[number] for number in numbers])


def read(folder: Path, names: tuple[str, ...]) -> list[Posts]:
    """Return the posts of files, with newsgroups numbered alike in all."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    files = [(folder / name).read_text(encoding="utf-8").splitlines() for name in names]
    rows = [[json.loads(line) for line in lines] for lines in files]
    groups = sorted({row["completion"] for row in rows[0]})
    return [
        Posts(
            tokenizer([row["prompt"].removesuffix(QUESTION) for row in part]).input_ids,
            [groups.index(row["completion"]) for row in part],
        )
        for part in rows
    ]


def classifier(folder: Path, arm: str, rank: int, groups: int) -> Any:
    """Return the model with a head of its own in fp32, and the adapter."""
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=groups, dtype=torch.bfloat16)
    base.config.pad_token_id = base.config.eos_token_id
    shared = {
        "r": rank,
        "target_modules": list(TARGETS),
        "modules_to_save": ["score"],
        "task_type": "SEQ_CLS",
    }
    lamda = arm == "lamda"
    config = (
        LamdaConfig(**shared, svd_iterations=SVD_ITERATIONS)
        if lamda
        else LoraConfig(**shared, lora_alpha=2 * rank)
    )
    model = get_peft_model(base, config)
    head = model.base_model.model.score.modules_to_save["default"].float()
    head.register_forward_pre_hook(lambda _, states: (states[0].float(),))
    return model


def judged(model: Any, posts: Posts) -> tuple[float, float]:
    """Return the mean loss and the share of posts whose newsgroup is found."""
    order = sorted(range(len(posts)), key=lambda number: len(posts.tokens[number]))
    total, right = 0.0, 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            logits = model(**posts.inputs(numbers, model.config.pad_token_id)).logits
            labels = posts.labels(numbers)
            total += cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(-1) == labels).sum())
    return total / len(posts), right / len(posts)


def one_run(
    folder: Path,
    parts: list[Posts],
    arm: str,
    seed: int,
    rank: int,
    learning_rate: float,
    freeze_share: float = 0.0,
) -> Settings:
    train, validation, test = parts
    torch.manual_seed(seed)
    model = classifier(folder, arm, rank, max(train.groups) + 1)
    if arm == "lamda":
        freeze_for_step(model, None, 0, STEPS, freeze_share)
    optimizer = torch.optim.AdamW(trained_now(model), lr=learning_rate, weight_decay=0.0)
    counts, losses = [], []
    model.train()
    for step in range(STEPS):
        if arm == "lamda":
            freeze_for_step(model, optimizer, step, STEPS, freeze_share)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_at(step, STEPS, WARMUP)
        numbers = numbers_of_step(step, BATCH, len(train), seed)
        logits = model(**train.inputs(numbers, model.config.pad_token_id)).logits
        loss = cross_entropy(logits, train.labels(numbers))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained_now(model), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        counts.append(sum(parameter.numel() for parameter in trained_now(model)))
        losses.append(loss.item())
    loss, accuracy = judged(model, test)
    return {
        "test": loss,
        "accuracy": accuracy,
        "validation": judged(model, validation)[0],
        "train": sum(losses[-20:]) / 20,
        "mean_parameters": sum(counts) / STEPS,
    }


def main(folder: Path, arms: list[str]) -> None:
    parts = read(folder, ("newsgroups.jsonl", "newsgroups-validation.jsonl", "newsgroups-test.jsonl"))
    journal = Journal(folder / "classify.runs.jsonl")

    def run(arm: str, seed: int, settings: Settings) -> Settings:
        key = run_key(arm, seed, settings)
        return journal.once(key, lambda: one_run(folder, parts, arm, seed, **settings))

    best = {arm: min(GRID[arm], key=lambda given: run(arm, 0, given)["validation"]) for arm in arms}
    finals = {arm: [run(arm, seed, best[arm]) for seed in SEEDS] for arm in arms}
    if "lora" in finals:
        print_table(best, finals)


def print_table(best: dict[str, Settings], finals: dict[str, list[Settings]]) -> None:
    lora = finals["lora"]
    names = ("method", "setting", "test loss, each seed", "against LoRA", "accuracy, %")
    print("| " + " | ".join((*names, "trained, mean", "fewer than LoRA")) + " |")
    print("|---|---|---|---:|---|---:|---:|")
    for arm, runs in finals.items():
        ratio = median([run["test"] / other["test"] for run, other in zip(runs, lora, strict=True)])
        losses = ", ".join(f"{run['test']:.3f}" for run in runs)
        found = ", ".join(f"{100 * run['accuracy']:.1f}" for run in runs)
        setting = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in best[arm].items())
        mean = runs[0]["mean_parameters"]
        fewer = lora[0]["mean_parameters"] / mean
        print(
            f"| {arm} | {setting} | {losses} | {100 * (ratio - 1):+.1f} % | {found} |"
            f" {mean:,.0f} | {fewer:.1f}× |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", metavar="ARM", choices=GRID, help="one method's runs")
    given = parser.parse_args()
    main(given.folder, [given.only] if given.only else list(GRID))
