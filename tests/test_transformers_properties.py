"""The properties of transformers' own model tests, over four pairs of backbones and every fusion.

docs/transformers-suites.md has the results of the suites themselves; test_modeling.py holds further properties.
"""

import copy

import pytest
import torch
from safetensors import safe_open
from transformers.modeling_utils import init as initialisation
from transformers_harness import PAIRS, pair_config

from modeling_merhan import FUSIONS, MerhanBlock, MerhanForSequenceClassification, MerhanModel


FIRST = next(iter(PAIRS))
CASES = [(pair, "hybrid") for pair in PAIRS] + [(FIRST, fusion) for fusion in FUSIONS if fusion != "hybrid"]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} x {case[1]}")
def config(request, cache):
    return pair_config(*request.param)


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return MerhanForSequenceClassification(config).eval()


@pytest.fixture
def inputs():
    """Three rows: padded words, padded sound, and one without sound."""
    generator = torch.Generator().manual_seed(0)
    audio_mask, text_mask = torch.ones(3, 4000).long(), torch.ones(3, 9).long()
    audio_mask[1, 2400:] = 0
    audio_mask[2] = 0
    text_mask[0, 6:] = 0
    ids = torch.randint(5, 20, (3, 9), generator=generator)
    return {
        "input_values": torch.randn(3, 4000, generator=generator) * audio_mask,
        "audio_attention_mask": audio_mask,
        "input_ids": torch.where(text_mask.bool(), ids, 1),
        "attention_mask": text_mask,
    }


def logits(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def test_determinism_and_batching(model, inputs):
    together = logits(model, inputs)
    assert torch.equal(logits(model, inputs), together)
    for row in range(3):
        alone = logits(model, {name: values[row : row + 1] for name, values in inputs.items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_saving_and_loading(model, inputs, tmp_path):
    """The logits stay, every weight is in the file of safetensors, and the base model loads from the same folder."""
    expected = logits(model, inputs)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    again, report = MerhanForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(again.eval(), inputs), expected)
    base, report = MerhanModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    with torch.no_grad():
        assert torch.equal(base.eval()(**inputs).pooler_output, model(**inputs).pooler_output)
    assert again.config.to_dict() == MerhanForSequenceClassification.from_pretrained(tmp_path).config.to_dict()


def test_another_number_of_labels_makes_a_new_head_and_nothing_else(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        MerhanForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    other, report = MerhanForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {key for key, *_ in report["mismatched_keys"]} == {"classifier.weight", "classifier.bias"}
    assert logits(other.eval(), inputs).shape == (3, 5)
    with torch.no_grad():
        assert torch.equal(other(**inputs).pooler_output, model(**inputs).pooler_output)


def test_construction_on_the_meta_device_and_under_a_device_context(config):
    with torch.device("meta"):
        empty = MerhanForSequenceClassification(copy.deepcopy(config))
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    with torch.device("cpu"):
        full = MerhanForSequenceClassification(copy.deepcopy(config))
    assert set(full.state_dict()) == set(empty.state_dict())


def test_every_tensor_is_a_parameter_or_a_buffer(model):
    registered = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for name, module in model.named_modules():
        loose = [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)]
        assert not [key for key in loose if id(getattr(module, key)) not in registered], name


def test_outputs_as_a_tuple_are_those_by_name(model, inputs):
    options = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        named, plain = model(**inputs, **options), model(**inputs, **options, return_dict=False)
    assert len(plain) == len(named.to_tuple())
    assert torch.equal(plain[0], named.logits)
    assert plain[-1].keys() == named.attentions.keys() and plain[-2].keys() == named.hidden_states.keys()
    for name, weights in named.attentions.items():
        assert weights.shape[:2] in {(3, model.config.num_attention_heads), (3, 1)}, name
        rows = weights.sum(dim=-1)
        torch.testing.assert_close(rows, torch.ones_like(rows), msg=name)
    layers = model.merhan.text_backbone.config.num_hidden_layers
    assert len(named.hidden_states["text"]) == layers + 1
    assert len(named.hidden_states["audio"]) == model.merhan.audio_backbone.config.num_hidden_layers + 1


def test_hidden_states_take_part_in_the_gradient(model, inputs):
    outputs = model(**inputs, output_hidden_states=True, labels=torch.tensor([0, 1, 2]))
    for name in ("audio", "text"):
        states = outputs.hidden_states[name][0]
        (gradient,) = torch.autograd.grad(outputs.loss, states, retain_graph=True)
        assert gradient.abs().sum() > 0, name


def test_token_embeddings_can_be_resized(model, inputs):
    before, size = logits(model, inputs), model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(size + 7)
    assert model.get_input_embeddings().num_embeddings == model.config.text_config.vocab_size == size + 7
    torch.testing.assert_close(logits(model, inputs), before)
    inputs["input_ids"][0, 1] = size + 6
    assert logits(model, inputs).isfinite().all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_computes_layers_twice_and_changes_no_gradient(model, inputs, reentrant):
    if reentrant and model.config.audio_config.model_type == "wavlm":
        pytest.skip("WavLM shares its position bias among layers: upstream, reentrant checkpointing never ends")
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    labels = torch.tensor([0, 1, 2])
    counted = []
    for block in (module for module in model.modules() if isinstance(module, MerhanBlock)):
        block.intermediate.register_forward_hook(lambda *_: counted.append(1))

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        model(**inputs, labels=labels).loss.backward()
        named = {name: parameter.grad for name, parameter in model.named_parameters()}
        return {name: gradient for name, gradient in named.items() if gradient is not None}

    before, calls = gradients(), len(counted)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    after = gradients()
    assert len(counted) == 3 * calls, "twice as often as before"
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_the_configs_of_the_backbones_are_those_of_the_config(model):
    assert model.merhan.audio_backbone.config is model.config.audio_config
    assert model.merhan.text_backbone.config is model.config.text_config


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_implementation_can_be_set_for_the_whole_and_changes_no_result(model, inputs, implementation):
    before = logits(model, inputs)
    model.set_attn_implementation(implementation)
    parts = [model, model.merhan.audio_backbone, model.merhan.text_backbone]
    able = [part.config for part in parts if part._can_set_attn_implementation()]  # WavLM cannot
    assert len(able) >= 2 and {part._attn_implementation for part in able} == {implementation}
    torch.testing.assert_close(logits(model, inputs), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same(model, inputs, dtype):
    before = logits(model, inputs)
    torch.testing.assert_close(logits(model.to(dtype), inputs).float(), before, atol=3e-2, rtol=3e-2)


def test_weights_that_a_checkpoint_lacks_are_initialised_as_in_a_new_model(config, monkeypatch):
    """Of the fusion and the heads; backbones of transformers initialise their own."""
    monkeypatch.setattr(initialisation, "normal_", lambda tensor, *_, **__: tensor.data.fill_(0.125))
    new = MerhanForSequenceClassification(copy.deepcopy(config)).state_dict()
    empty = MerhanForSequenceClassification.from_pretrained(None, config=copy.deepcopy(config), state_dict={})
    loaded = empty.state_dict()
    names = [name for name in new if "_backbone" not in name or "light" in name]
    assert names and all(tensor.device.type == "cpu" for tensor in loaded.values())
    for name in names:
        assert torch.equal(new[name], loaded[name]), name
