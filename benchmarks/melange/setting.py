"""The setting of Mélange's evaluation (arXiv 2404.14527, section 6), and the figures that it reports.

Model: Llama 2 7B. Its own window of 4,096 tokens holds few PubMed requests; which longer variant
the paper served isn't known to us, so the bundled shape is given the window that its published
32K fine-tunes have. Speed and memory don't depend on it.
Requests longer than the last edges are left out: for Arena the paper's grid ends at 2,000 tokens in
and out, for the others ours at 16,000 in. That is 0.2 to 0.6 % of the requests; a single one of
20,000 could otherwise forbid a GPU type, where the paper counts over all requests (at least 99.5 %).
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

GPUS = ("L4", "A10G", "A100-80GB", "H100-SXM")
RATES_RPS = (1, 2, 4, 8, 16, 32)
TPOTS_MS = (120, 40)
DATASETS = ("arena", "pubmed", "mixed")
WINDOW_TOKENS = 32_768
OUTPUT_EDGES = (1, 25, 100, 250, 500, 1000, 2000)
LONG_EDGES = (*OUTPUT_EDGES, 4000, 8000, 16_000)
INPUT_EDGES = {"arena": OUTPUT_EDGES, "pubmed": LONG_EDGES, "mixed": LONG_EDGES}

# GPUs of single-type fleets and Mélange's USD/h at RATES_RPS, read off the bars of the paper's
# figures for Arena (the costs from rate 16 up are read to ±0.2 USD/h).
ARENA_COUNTS = {
    120: {
        "L4": (3, 5, 9, 17, 33, 65),
        "A10G": (2, 3, 6, 11, 20, 39),
        "A100-80GB": (1, 1, 2, 3, 6, 9),
        "H100-SXM": (1, 1, 1, 2, 4, 8),
    },
    40: {
        "L4": (5, 9, 17, 34, 68, 134),
        "A10G": (3, 5, 10, 16, 40, 80),
        "A100-80GB": (1, 1, 2, 3, 6, 9),
        "H100-SXM": (1, 1, 1, 2, 4, 7),
    },
}
ARENA_USD_PER_HOUR = {
    120: (1.71, 2.41, 4.37, 7.40, 14.5, 25.8),
    40: (2.41, 3.67, 5.38, 9.05, 17.15, 30.1),
}
# Savings against single types in percent, from the cell and type with the least to that with the most.
SAVINGS = {
    "arena": {120: "15 to 77", 40: "9 to 68"},
    "pubmed": {120: "15 to 33", 40: "2 to 22"},
    "mixed": {120: "13 to 51", 40: "4 to 51"},
}


def model_folder(folder: Path) -> Path:
    """Write Llama 2 7B's config with the longer window; return the folder that holds it."""
    bundled = files("hgpu.catalog") / "data/models/meta-llama--Llama-2-7b-hf.json"
    config = json.loads(bundled.read_text()) | {"max_position_embeddings": WINDOW_TOKENS}
    model = folder / "Llama-2-7b-32k"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    return model


def spec(dataset: str, model: Path, percentile: float, in_flight: int | None) -> dict[str, Any]:
    """Return the spec file's content for a dataset; rate and objective are swept.

    `in_flight` is the most requests that an engine runs at once, where not vLLM's default.
    """
    limit = {} if in_flight is None else {"max_num_seqs": in_flight}
    return {
        "kind": "serve",
        "model": str(model),
        "workload": {
            "lengths": dataset,
            "rate_rps": 1,
            "input_edges": list(INPUT_EDGES[dataset]),
            "output_edges": list(OUTPUT_EDGES),
            "allow_outside": True,
        },
        "slo": {"tpot_ms": 120, "percentile": percentile},
        "gpus": list(GPUS),
        "engine": {"max_model_len": INPUT_EDGES[dataset][-1] + OUTPUT_EDGES[-1], **limit},
        "offers": {"book": "melange"},
    }
