"""Train a small mixture of experts on the standard library's source, in minutes on one CPU core.

Its routing is neither random nor collapsed: that takes the usual load-balancing loss, layer by layer.
Run it where vLLM is installed (it brings torch and transformers):

    python benchmarks/experts/train.py FOLDER [--steps 800] [--seed 0]
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from corpus import texts
from tokenizers import Tokenizer
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from hgpu.runtime.tiny_model import write_tokenizer
from hgpu.runtime.tiny_moe import moe_config

CONTEXT_TOKENS, BATCH = 256, 12
BALANCE_WEIGHT = 0.001  # of the load-balancing loss: Qwen3-MoE's own router_aux_loss_coef
LEARNING_RATE, WARMUP_STEPS = 3e-3, 50
END = 1  # the tokenizer's </s>, between files


def main() -> None:
    """Train, print losses and expert loads, and save what vLLM loads."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(options.folder)
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    learnt, held_out = (_tokens(tokenizer, texts(split)) for split in ("train", "held-out"))
    print(f"{len(learnt):,} tokens to train on, {len(held_out):,} held out")
    config = moe_config(
        options.experts, options.per_token, options.layers, options.hidden, options.inner, 2048
    )
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**config))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    _train(model, learnt, options.steps, options.seed, options.balance_weight)
    report = _judged(model, held_out)
    model.to(torch.bfloat16).save_pretrained(options.folder)
    _say_architecture(options.folder, config)
    print(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--per-token", type=int, default=4)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--inner", type=int, default=64, help="inner width of one expert")
    parser.add_argument("--balance-weight", type=float, default=BALANCE_WEIGHT)
    return parser.parse_args()


def _tokens(tokenizer: Tokenizer, files: list[str]) -> torch.Tensor:
    encoded = tokenizer.encode_batch(files)
    return torch.tensor([token for file in encoded for token in [*file.ids, END]])


def _train(
    model: Qwen3MoeForCausalLM, tokens: torch.Tensor, steps: int, seed: int, balance_weight: float
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    random = torch.Generator().manual_seed(seed)
    began = time.perf_counter()
    for step in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT_TOKENS - 1, (BATCH,), generator=random)
        loss, balance, _ = _losses(model, torch.stack([tokens[s : s + CONTEXT_TOKENS] for s in starts]))
        optimizer.zero_grad()
        (loss + balance_weight * model.config.num_experts_per_tok * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            took_s = time.perf_counter() - began
            print(f"step {step}: loss {loss:.3f}, balance {balance:.3f}, {took_s:.0f} s", flush=True)


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


def _losses(
    model: Qwen3MoeForCausalLM, batch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return the cross entropy in nats a token, the balance loss, and the gates' logits.

    The balance loss is Switch's, of each layer by itself, in the mean over layers and over a token's k
    choices: 1 where loads are even, E/k where all tokens go to the same k of E experts.
    """
    config = model.config
    out = model(input_ids=batch, output_router_logits=True)
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
    layers = [
        load_balancing_loss_func((gate,), config.num_experts, config.num_experts_per_tok)
        for gate in out.router_logits
    ]
    return loss, torch.stack(layers).mean() / config.num_experts_per_tok, out.router_logits


@torch.no_grad()
def _judged(model: Qwen3MoeForCausalLM, tokens: torch.Tensor) -> dict[str, Any]:
    """Return the loss and each layer's expert loads on held-out text.

    A load is an expert's share of the choices times the number of experts: 1 where all are even.
    """
    experts, top_k = model.config.num_experts, model.config.num_experts_per_tok
    counts = torch.zeros(model.config.num_hidden_layers, experts)
    losses = []
    for window in tokens[: 40 * BATCH * CONTEXT_TOKENS].split(BATCH * CONTEXT_TOKENS)[:-1]:
        loss, _, gates = _losses(model, window.view(BATCH, CONTEXT_TOKENS))
        losses.append(loss.item())
        for layer, gate in enumerate(gates):
            counts[layer] += torch.bincount(gate.topk(top_k).indices.flatten(), minlength=experts)
    share = counts / counts.sum(1, keepdim=True)
    entropy = -(share * share.clamp_min(1e-12).log()).sum(1) / math.log(experts)
    hottest = share.sort(1, descending=True).values[:, : experts // 4].sum(1)
    return {
        "held_out_loss_nats": sum(losses) / len(losses),
        "layers": [
            {
                "largest_load": (share[n].max() * experts).item(),
                "smallest_load": (share[n].min() * experts).item(),
                "load_entropy": entropy[n].item(),
                "share_of_hottest_quarter": hottest[n].item(),
            }
            for n in range(len(share))
        ],
    }


def _say_architecture(folder: Path, config: dict[str, Any]) -> None:
    """Write the configuration that vLLM reads, which says that the weights are bfloat16."""
    config = config | {"torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
