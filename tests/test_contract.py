"""The contract of a transformers model at its edges: outputs on request, and input that is refused by name."""

import importlib
import shutil
import sys

import pytest
import torch
from conftest import tiny_config
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

import configuration_merhan
import modeling_merhan
from configuration_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig
from modeling_merhan import MerhanAudioModel, MerhanForSequenceClassification, emotion_loss


def test_outputs_come_as_a_tuple_or_by_name(make_model, batch):
    model = make_model()
    by_name = model(**batch)
    (logits, pooled) = model(**batch, return_dict=False)
    assert torch.equal(logits, by_name.logits) and torch.equal(pooled, by_name.pooler_output)
    assert by_name.hidden_states is None and by_name.attentions is None
    model.config.return_dict = False
    assert isinstance(model(**batch), tuple)


@pytest.mark.parametrize("audio", ["layer", "group", "light"])
def test_hidden_states_on_request(audio, make_model, batch):
    model = make_model(audio)
    outputs = model(**batch, output_hidden_states=True)
    states = outputs.hidden_states
    assert len(states["audio"]) == len(states["text"]) == 3, "what enters the first of two layers, and what leaves each"
    assert set(states) == {"audio", "text", "audio_local", "text_local", "audio_to_text", "text_to_audio", "global"}
    assert states["global"].shape[0] == 3 and states["global"].shape[2] == model.config.hidden_size
    assert torch.equal(outputs.logits, model(**batch).logits)


def test_the_config_can_ask_for_outputs(make_model, batch):
    model = make_model()
    model.set_attn_implementation("eager")  # a config of transformers refuses output_attentions under sdpa
    for name in ("output_attentions", "output_hidden_states"):
        setattr(model.config, name, True)
    outputs = model(**batch)
    assert outputs.attentions and outputs.hidden_states
    assert model(**batch, output_attentions=False).attentions is None, "an argument overrides the config"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"inputs_embeds": torch.zeros(3, 12, 16)}, "inputs_embeds is not supported"),
        ({"input_ids": None}, "A mask of text was given without its values"),
        ({"input_values": None}, "A mask of audio was given without its values"),
        ({"audio_features": torch.zeros(3, 5, 16)}, "input_values and audio_features are alternatives"),
        ({"text_features": torch.zeros(3, 5, 16)}, "input_ids and text_features are alternatives"),
        ({"audio_features_mask": torch.ones(3, 5)}, "A mask of audio was given without its values"),
        ({"input_features": torch.zeros(3, 5, 16)}, "input_values and input_features are alternatives"),
        ({"labels": torch.zeros(3, 7)}, "labels of shape .3, 7. are neither class ids"),
    ],
)
def test_input_that_cannot_be_used_is_refused_by_name(change, expected, make_model, batch):
    with pytest.raises(ValueError, match=expected):
        make_model()(**batch | change)


def test_shapes_of_labels(make_model, batch):
    model = make_model()
    loss = model(**batch, labels=torch.tensor([0, 1, 2])).loss
    assert torch.equal(model(**batch, labels=torch.tensor([[0], [1], [2]])).loss, loss)
    distributions = torch.nn.functional.one_hot(torch.tensor([0, 1, 2]), 4).float()
    assert torch.allclose(model(**batch, labels=distributions).loss, loss)


def test_rows_without_a_label_do_not_count():
    config = tiny_config()
    logits, labels = torch.randn(4, 4), torch.tensor([0, -100, 2, -100])
    assert torch.allclose(emotion_loss(logits, labels, config), emotion_loss(logits[::2], labels[::2], config))
    assert torch.allclose(
        emotion_loss(logits, labels, config), torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100)
    )
    assert emotion_loss(logits, torch.full((4,), -100), config) == 0


@pytest.mark.parametrize("label", [-1, -5, 4])
def test_class_ids_out_of_range_are_refused(label):
    with pytest.raises(RuntimeError, match="Class values must be"):
        emotion_loss(torch.randn(2, 4), torch.tensor([0, label]), tiny_config())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"problem_type": "regression"}, "problem_type 'regression' is not supported"),
        ({"label_smoothing": 3}, "label_smoothing is 3; it must be a share"),
        ({"modality_dropout": 2}, "modality_dropout is 2; it must be a share"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 weights for 4 labels"),
    ],
)
def test_config_values_out_of_range_are_refused(fields, expected):
    with pytest.raises(StrictDataclassError, match=expected):
        tiny_config(**fields)


def test_token_embeddings_can_be_read_and_resized(make_model, batch):
    model = make_model()
    assert model.get_input_embeddings() is model.merhan.text_backbone.get_input_embeddings()
    before = model(**batch).logits
    model.resize_token_embeddings(80)
    assert model.get_input_embeddings().num_embeddings == 80 == model.config.text_config.vocab_size
    assert torch.allclose(model(**batch).logits, before), "known tokens keep their embeddings"
    with pytest.raises(NotImplementedError, match="no text backbone"):
        make_model(text=False).get_input_embeddings()


@pytest.mark.parametrize("task", [TaskType.SEQ_CLS, TaskType.FEATURE_EXTRACTION])
def test_adapters_of_peft_over_the_whole_model(task, make_model, batch):
    model = make_model()
    before = model(**batch).logits
    adapted = get_peft_model(model, LoraConfig(task_type=task, r=2, target_modules=["q_proj", "query"]))
    assert torch.allclose(adapted(**batch).logits, before, atol=1e-6)


def test_layers_that_a_device_map_keeps_together_include_those_of_the_backbones(make_model):
    assert {"MerhanBlock", "RobertaEmbeddings"} <= set(make_model()._no_split_modules)


def test_features_in_float32_serve_a_model_in_bf16(make_model):
    model = make_model().to(torch.bfloat16)
    outputs = model(audio_features=torch.randn(2, 5, 16), text_features=torch.randn(2, 5, 16))
    assert outputs.logits.isfinite().all()


def test_the_light_backbone_computes_its_spectrum_in_full_precision_under_bf16():
    torch.manual_seed(0)
    model = MerhanAudioModel(tiny_config("light").audio_config).eval()
    waveform, spectra = torch.randn(2, 8000), []
    model.convolutions[0].register_forward_pre_hook(lambda module, inputs: spectra.append(inputs[0]))
    model(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        model(waveform)
    model.to(torch.bfloat16)(waveform)
    expected, under_autocast, under_bf16_weights = spectra
    assert torch.equal(under_autocast, expected)
    assert torch.equal(under_bf16_weights, expected.bfloat16()), "rounded once, at the end"


def test_another_copy_of_the_code_in_the_same_process_changes_nothing(make_model, batch, tmp_path, monkeypatch):
    """As of a second checkpoint, or of a published model that is loaded back: it registers its own backbone."""
    try:
        copies = tmp_path / "another_copy"
        copies.mkdir()
        (copies / "__init__.py").touch()
        for own in (configuration_merhan, modeling_merhan):
            shutil.copy(own.__file__, copies)
        monkeypatch.syspath_prepend(tmp_path)
        another = importlib.import_module("another_copy.modeling_merhan")
        assert another.MerhanConfig is not MerhanConfig, "its own configuration, from beside it"
        model = make_model("light")
        assert type(model.merhan.audio_backbone) is MerhanAudioModel
        model.save_pretrained(tmp_path / "model")
        again = MerhanForSequenceClassification.from_pretrained(tmp_path / "model").eval()
        assert type(again.config.audio_config) is MerhanAudioConfig
        assert torch.equal(again(**batch).logits, model(**batch).logits)
        vectors = MerhanConfig(audio_config={"model_type": "merhan_features", "hidden_size": 8})
        assert modeling_merhan.MerhanModel(vectors).audio_backbone is None
    finally:
        for name in [name for name in sys.modules if name.startswith("another_copy")]:
            del sys.modules[name]
        for own in (MerhanAudioConfig, MerhanFeaturesConfig):
            AutoConfig.register(own.model_type, own, exist_ok=True)
        AutoModel.register(MerhanAudioConfig, MerhanAudioModel, exist_ok=True)


def test_a_checkpoint_of_an_earlier_version_with_buffers_loads(make_model, batch, tmp_path):
    model = make_model("light")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {f"merhan.audio_backbone.{name}": torch.ones(3) for name in ("window", "filterbank", "cosine")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, info = MerhanForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]
    assert torch.equal(again.eval()(**batch).logits, model(**batch).logits)
