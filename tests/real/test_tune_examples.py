"""`hgpu tune` on prompts with completions and on chats: which tokens are learned, all of them alike."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real.tune_jobs import small_job
from real.weights import write_weights
from tests_types import Run

from hgpu.artifacts.store import load
from hgpu.core.errors import InputError
from hgpu.runtime.tiny_model import make_tiny_model
from hgpu.tuning.documents import Chat, Example
from hgpu.tuning.job import TuneJob

pytestmark = pytest.mark.vllm
STEPS = 30
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHAT = Chat(
    [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_weights(make_tiny_model(folder / "model", hidden_size=64, layers=2))
    lines = [{"prompt": f"{'x' * (n % 7)} {n % 3}:", "completion": " yes" * (1 + n % 3)} for n in range(80)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "model")


@pytest.fixture
def job(folder: Path) -> TuneJob:
    return small_job(folder)


def test_what_a_plan_chose_learns_what_follows_a_prompt(hgpu: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        f"kind: finetune\nmodel: {folder / 'model'}\ndata: {folder / 'data.jsonl'}\nmethod: full\n"
        "checkpointing: [true, false]\n"
        f"context: 40\nbatch: 8\nsteps: {STEPS}\nlearning_rate: 0.005\ndeadline_h: 1\n"
        "gpus: [L4]\noffers: {book: default, clouds: [aws]}\nlimits: {aws: 1}\n"
    )
    planned = json.loads(hgpu("plan", "spec.yaml", "--json").stdout)
    assert planned["choice"]["variant"]["checkpointing"] is False
    done = hgpu("tune", planned["digest"][:12], "--set", "seed=3", "--json")
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout)
    assert payload["documents"] == 80 and payload["held_out"]["sequences"] == 4
    assert payload["held_out"]["after"] < 0.2 < payload["held_out"]["before"]
    assert 0 < payload["tokens"] < STEPS * 8 * 40, "what fills a sequence was counted"
    artifact = load(tmp_path / payload["path"])
    assert (artifact.payload.method, artifact.payload.seed) == ("full", 3)
    assert artifact.manifest.inputs[0].digest == planned["digest"]


def test_the_loss_is_of_the_completion_however_a_batch_is_divided(job: TuneJob) -> None:
    import torch

    from hgpu.tuning.loading import load_model, load_sequences
    from hgpu.tuning.train import mean_loss, train

    rows = load_sequences(job).train
    model = load_model(job, "cpu").eval()
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(rows.tokens[:8])).logits[:, :-1]
        chances = torch.log_softmax(logits.float(), dim=-1)
    terms = [
        -float(chances[row, place - 1, rows.tokens[row, place]])
        for row in range(8)
        for place in range(1, 40)
        if rows.labels[row, place] >= 0
    ]
    expected = sum(terms) / len(terms)
    for size in (1, 3, 8):
        assert mean_loss(model, replace(job, micro_batch=size), rows[:8]) == pytest.approx(expected, rel=1e-5)

    def losses(size: int) -> list[float]:
        from hgpu.tuning.methods import adapt

        torch.manual_seed(0)
        part = replace(job, micro_batch=size)
        return train(
            adapt(load_model(part, "cpu"), part)[0], part, load_sequences(part), None, lambda *_: None
        ).losses

    assert losses(1) == pytest.approx(losses(4), rel=1e-5)


def test_a_prompt_has_the_tokens_it_has_alone_and_the_completion_is_ended(tokenizer: Any) -> None:
    from hgpu.tuning.tokens import encode, encode_example

    prompt, answer = encode_example(tokenizer, Example("The sum is", " four"))
    assert prompt == encode(tokenizer, "The sum is") and answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer[:-1]) == " four"
    split = encode_example(tokenizer, Example("import nu", "mpy"))
    assert split[0] == encode(tokenizer, "import nu") and tokenizer.decode(split[1][:-1]) == "mpy"


def test_of_a_chat_the_last_answer_is_learned_as_the_template_writes_it(tokenizer: Any) -> None:
    from hgpu.tuning.tokens import encode_example

    end = tokenizer.eos_token
    tokenizer.chat_template = TEMPLATE
    prompt, answer = encode_example(tokenizer, CHAT)
    assert tokenizer.decode(prompt) == f"<user>one{end}<assistant>two{end}<user>three{end}<assistant>"
    assert tokenizer.decode(answer) == f"four{end}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('one user, please') }}", "one user, please"),
        ("{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}", "can't be trained on"),
    ],
)
def test_a_chat_that_the_template_cannot_write_is_refused(
    tokenizer: Any, template: str | None, said: str
) -> None:
    from hgpu.tuning.tokens import encode_example

    tokenizer.chat_template = template
    with pytest.raises(InputError) as raised:
        encode_example(tokenizer, CHAT)
    assert said in f"{raised.value.what} {raised.value.why}" and raised.value.fix
