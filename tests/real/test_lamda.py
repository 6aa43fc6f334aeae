"""LaMDA in torch and PEFT: gradients, what is saved and freed, adapters on disk, merged and side by side."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from linears import linears

from hgpu.core.errors import InputError
from hgpu.latency.training_counts import lamda_count
from hgpu.tuning.lamda import Init, decompose, frozen_columns

pytestmark = pytest.mark.vllm
torch = pytest.importorskip("torch")

STEPS, ETA, RANK = 20, 0.5, 8
TARGETS = ["q_proj", "v_proj", "up_proj"]


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        name_or_path="",
    )
    return LlamaForCausalLM(config)


def adapted(**settings: Any) -> Any:
    from peft import get_peft_model

    from hgpu.tuning.lamda_peft import LamdaConfig

    return get_peft_model(llama(), LamdaConfig(r=RANK, target_modules=TARGETS, **settings))


TOKENS = torch.randint(0, 128, (2, 24), generator=torch.Generator().manual_seed(1))


def answer(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def train(model: Any, each: Callable[[int, Any], None] = lambda *_: None) -> None:
    from hgpu.tuning.lamda_factors import freeze_for_step

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.1)
    for step in range(STEPS):
        freeze_for_step(model, optimizer, step, STEPS, ETA)
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        each(step, optimizer)
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def trained() -> Any:
    model = adapted()
    train(model)
    return model


@pytest.mark.parametrize("init", list(Init))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_changes_at_the_start_not_even_in_16_bits(init: Init, dtype: Any) -> None:
    from peft import get_peft_model

    from hgpu.tuning.lamda_peft import LamdaConfig

    base = llama().to(dtype)
    before = answer(base)
    config = LamdaConfig(r=RANK, target_modules=TARGETS, init=init)
    assert torch.equal(answer(get_peft_model(base, config)), before)


def test_gradients_are_those_of_plain_autograd() -> None:
    from hgpu.tuning.lamda_factors import LowDimensional

    torch.manual_seed(0)
    shapes = ((2, 5, 7), (3, 7), (3, 3), (2, 6), (1, 6), (3, 6))
    x, a, s, b, frozen, anchor = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    for tensor in (x, s, b):
        tensor.requires_grad_()

    def ours(x: Any, s: Any, b: Any) -> Any:
        return LowDimensional.apply(x, a, s, b, frozen, anchor)

    assert torch.autograd.gradcheck(ours, (x, s, b))
    torch.testing.assert_close(ours(x, s, b), x @ a.T @ (s.T @ torch.cat((frozen, b)) - anchor))


@contextmanager
def saved(own: list[Any]) -> Iterator[list[int]]:
    """Collect the sizes of what is kept for the backward pass, beside the tensors in `own`."""
    known, sizes = {tensor.data_ptr() for tensor in own}, []

    def pack(tensor: Any) -> Any:
        if tensor.data_ptr() not in known:
            known.add(tensor.data_ptr())
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def test_only_a_x_is_saved_where_lora_saves_x_too() -> None:
    """512 tokens of 512 with rank 8: LoRA saves 266,240 numbers, LaMDA under plain autograd 8,192."""
    from hgpu.tuning.lamda_factors import LamdaFactors

    x = torch.randn(512, 512)
    weight = torch.nn.Linear(512, 512, bias=False)
    factors = LamdaFactors(8, 512, 512)
    factors.start(decompose(weight.weight.detach().numpy(), 8))
    down, up = torch.nn.Linear(512, 8, bias=False), torch.nn.Linear(8, 512, bias=False)
    with saved([down.weight, up.weight]) as lora:
        up(down(x)).sum()
    with saved([factors.a, factors.s, factors.b]) as plain:
        (x @ factors.a.T @ factors.s.T @ factors.b).sum()
    with saved([*factors.parameters(), *factors.buffers()]) as ours:
        factors(x).sum()
    factors.freeze(8)
    with saved([*factors.parameters(), *factors.buffers()]) as frozen:
        factors(x).sum()
    assert (sum(lora), sum(plain), sum(ours), sum(frozen)) == (266_240, 8_192, 4_096, 4_096)


def test_freezing_frees_gradients_and_states_and_leaves_columns_bit_identical() -> None:
    """AdamW with decay, which moves whatever it holds: what is frozen isn't in it any more."""
    from hgpu.tuning.lamda_factors import LamdaFactors

    model = adapted()
    layers = [module for module in model.modules() if isinstance(module, LamdaFactors)]
    frozen_at: dict[tuple[int, int], Any] = {}
    counts = []

    def look(step: int, optimizer: Any) -> None:
        frozen = frozen_columns(step, STEPS, RANK, ETA)
        for number, layer in enumerate(layers):
            assert len(layer.frozen) == frozen and len(layer.b) == RANK - frozen
            for column in range(frozen):
                first = frozen_at.setdefault((number, column), layer.frozen[column].clone())
                assert torch.equal(layer.frozen[column], first), f"column {column} moved in step {step}"
            if not len(layer.b):
                assert layer.b.grad is None and not layer.b.requires_grad
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.grad is not None)
        states = [state["exp_avg"].numel() for state in optimizer.state.values()]
        assert sum(states) in (0, trained), "the optimizer keeps states of what it doesn't train"
        assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == trained
        counts.append(trained)

    before = [layer.b.detach().clone() for layer in layers]
    train(model, look)
    shapes = [(layer.frozen.shape[1], layer.a.shape[1]) for layer in layers]
    expected = lamda_count(linears(shapes), RANK, ETA)
    assert (counts[0], sum(counts) / STEPS, counts[-1]) == (expected.peak, expected.mean, expected.final)
    for layer, start in zip(layers, before, strict=True):
        assert not torch.equal(layer.frozen[-1], start[-1]), "the last column was never trained"


def test_an_adapter_is_saved_with_its_a_and_loaded_exactly(trained: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    expected = answer(trained)
    trained.save_pretrained(tmp_path, save_embedding_layers=False)
    names = {name.rpartition(".")[2] for name in load_file(tmp_path / "adapter_model.safetensors")}
    assert names == {"a", "s", "b", "anchor"}
    for low in (False, True):
        loaded = PeftModel.from_pretrained(llama(), tmp_path, low_cpu_mem_usage=low)
        assert torch.equal(answer(loaded), expected)


def test_a_classifiers_head_is_trained_saved_and_loaded_with_it(tmp_path: Path) -> None:
    from peft import PeftModel, get_peft_model
    from transformers import LlamaForSequenceClassification

    from hgpu.tuning.lamda_factors import freeze_for_step
    from hgpu.tuning.lamda_peft import LamdaConfig

    config = llama().config
    config.num_labels, config.pad_token_id = 3, 0

    def plain() -> Any:
        torch.manual_seed(0)
        return LlamaForSequenceClassification(config)

    model = get_peft_model(
        plain(), LamdaConfig(r=RANK, target_modules=TARGETS, modules_to_save=["score"], task_type="SEQ_CLS")
    )
    head = model.base_model.model.score.modules_to_save["default"].weight
    before = head.detach().clone()
    freeze_for_step(model, None, STEPS, STEPS, ETA)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 2 * len(TARGETS) * RANK**2 + head.numel()
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    model(input_ids=TOKENS, labels=torch.tensor([0, 2])).loss.backward()
    optimizer.step()
    assert not torch.equal(head, before)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(plain(), tmp_path)
    assert torch.equal(answer(loaded), answer(model.eval()))


def test_merging_is_within_1e_5_and_undone_and_for_good_leaves_a_plain_model() -> None:
    model = adapted()
    train(model)
    expected = answer(model)
    with model.disable_adapter():
        assert torch.equal(answer(model), answer(llama()))
    assert not torch.allclose(answer(llama()), expected, atol=1e-3), "training changed nothing"
    model.merge_adapter()
    torch.testing.assert_close(answer(model), expected, atol=1e-5, rtol=0)
    model.unmerge_adapter()
    torch.testing.assert_close(answer(model), expected, atol=1e-5, rtol=0)
    merged = model.merge_and_unload(safe_merge=True)
    assert not [name for name, _ in merged.named_modules() if "lamda" in name]
    torch.testing.assert_close(answer(merged), expected, atol=1e-5, rtol=0)


def test_adapters_of_other_ranks_and_targets_live_side_by_side(trained: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    from hgpu.tuning.lamda_peft import LamdaConfig

    expected = answer(trained)
    trained.save_pretrained(tmp_path, save_embedding_layers=False)
    model = PeftModel.from_pretrained(llama(), tmp_path, adapter_name="first")
    config = LamdaConfig(r=4, target_modules=["q_proj", "o_proj"], init="zero", rank_pattern={"o_proj": 2})
    model.add_adapter("second", config)
    assert torch.equal(answer(model), expected)
    model.set_adapter("second")
    assert torch.equal(answer(model), answer(llama())), "an adapter that wasn't trained yet changes nothing"
    train(model)
    second = answer(model)
    model.set_adapter("first")
    assert torch.equal(answer(model), expected), "training one adapter moved the other"
    model.set_adapter("second")
    model.delete_adapter("first")
    assert torch.equal(answer(model), second)


def test_a_state_comes_back_into_a_model_that_has_frozen_less_or_more(trained: Any) -> None:
    from hgpu.tuning.lamda_factors import freeze_for_step
    from hgpu.tuning.methods import set_trained_state, trained_state

    for step in (0, 5, STEPS - 1):
        model = adapted()
        freeze_for_step(model, None, step, STEPS, ETA)
        set_trained_state(model, trained_state(trained))
        assert torch.equal(answer(model), answer(trained))


def test_what_can_not_be_adapted_is_refused_by_name() -> None:
    from peft import get_peft_model

    from hgpu.tuning.lamda_peft import LamdaConfig

    with pytest.raises(InputError, match=r"rank 25 doesn't fit model\.layers\.0\.self_attn\.v_proj of 24"):
        get_peft_model(llama(), LamdaConfig(r=25, target_modules=["v_proj"]))
    with pytest.raises(InputError, match=r"can't adapt model\.embed_tokens"):
        get_peft_model(llama(), LamdaConfig(r=4, target_modules=["embed_tokens"]))
    with pytest.raises(ValueError, match="'other' is not a valid Init"):
        LamdaConfig(init="other")


def test_another_release_of_peft_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from hgpu.tuning import lamda_peft

    monkeypatch.setattr(lamda_peft, "NAME", "another")
    monkeypatch.setattr(lamda_peft.peft, "__version__", "0.22.0")
    with pytest.raises(InputError, match=r"isn't registered with PEFT 0\.22\.0"):
        lamda_peft._register()
