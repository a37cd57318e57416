"""The model: what must hold whatever its weights are."""

import numpy as np
import pytest
import torch
from conftest import LABELS, audio_config, text_config, tiny_config
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    RobertaForMaskedLM,
    RobertaModel,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from configuration_merhan import CHOICES, MerhanConfig
from merhan.models.backbones import from_backbones
from modeling_merhan import (
    FUSIONS,
    MerhanForSequenceClassification,
    MerhanModel,
    MerhanPooling,
    Modality,
    concordance_loss,
    emotion_loss,
)


KINDS = ["layer", "group", "light"]
# What must hold for the hybrid must hold for every way of fusing, pooling and mixing.
VARIANTS = [
    *({"fusion": name} for name in FUSIONS if name != "hybrid"),
    *({"fusion_parts": parts} for parts in ([], ["local"], ["cross"], ["global"])),
    *({"fusion": "memocmt" if name == "min" else "gated", "pooling": name} for name in CHOICES["pooling"][1:]),
    {"layer_mixing": True},
]
BOTH = [(kind, {}) for kind in KINDS] + [("layer", variant) for variant in VARIANTS]
FUSED = [("layer", {}), ("light", {"layer_mixing": True})] + BOTH[3:]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def row_of(batch, row):
    """One utterance without any padding; a modality that it lacks is left out."""
    samples, tokens = batch["audio_attention_mask"][row].sum(), batch["attention_mask"][row].sum()
    alone = {}
    if samples:
        alone |= {
            "input_values": batch["input_values"][row : row + 1, :samples],
            "audio_attention_mask": batch["audio_attention_mask"][row : row + 1, :samples],
        }
    if tokens:
        alone |= {
            "input_ids": batch["input_ids"][row : row + 1, :tokens],
            "attention_mask": batch["attention_mask"][row : row + 1, :tokens],
        }
    return alone


@torch.no_grad()
def logits_of(model, batch):
    return model(**batch).logits


# --- configuration ---


@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip(kind, tmp_path):
    config = tiny_config(kind, modality_dropout=0.2, class_weights=[1.0, 2.0, 1.0, 1.0])
    config.save_pretrained(tmp_path)
    again = MerhanConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert type(again.audio_config) is type(config.audio_config)
    assert again.id2label == dict(enumerate(LABELS))


def test_config_refuses_wrong_types():
    with pytest.raises(Exception, match="hidden_size"):
        tiny_config().hidden_size = "wide"
    assert tiny_config(modality_dropout=0).modality_dropout == 0, "an int is a number too"


# --- weights ---


@pytest.mark.parametrize(("kind", "variant"), BOTH)
def test_save_and_load_change_nothing(kind, variant, make_model, batch, tmp_path):
    model = make_model(kind, **variant)
    model.save_pretrained(tmp_path)
    again, info = MerhanForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    buffers = dict(again.named_buffers())
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in model.named_buffers())
    assert torch.equal(logits_of(again.eval(), batch), logits_of(model, batch))


@pytest.mark.parametrize(("kind", "variant"), BOTH)
def test_every_weight_is_initialised_without_a_checkpoint(kind, variant, monkeypatch):
    """from_pretrained builds on the meta device: what only `__init__` fills would come back as garbage."""
    original = PreTrainedModel._initialize_weights

    def seeded(self, module, *args, **kwargs):
        torch.manual_seed(0)  # the two ways visit the modules in different orders
        return original(self, module, *args, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "_initialize_weights", seeded)
    plain = MerhanForSequenceClassification(tiny_config(kind, **variant))
    empty = MerhanForSequenceClassification.from_pretrained(None, config=tiny_config(kind, **variant), state_dict={})
    assert not [name for name, tensor in empty.state_dict().items() if tensor.is_meta]
    for ways in (nn.Module.named_parameters, nn.Module.named_buffers):
        for (name, one), (_, other) in zip(ways(plain), ways(empty), strict=True):
            # Inside another's model, transformers 5.23 itself leaves parts of its wav2vec2 uninitialised on this road.
            if "audio_backbone" not in name or kind == "light":
                assert torch.equal(one, other), name


@pytest.mark.parametrize(("kind", "variant"), BOTH)
def test_gradients_reach_every_parameter(kind, variant, make_model, batch):
    model = make_model(kind, **variant).train()
    batch["attention_mask"][1] = 0  # so that both missing-modality tokens are used
    model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    unreached = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and "masked_spec_embed" not in name
    ]
    assert not unreached


@pytest.mark.parametrize(("kind", "variant"), FUSED)
def test_halves_of_a_batch_have_the_gradient_of_the_whole(kind, variant, make_model, batch):
    model = make_model(kind, **variant)
    rows, labels = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2, 3])

    def gradient(*parts):
        model.zero_grad()
        for part in parts:
            given = {name: tensor[rows[part]] for name, tensor in batch.items()}
            (model(**given, labels=labels[part]).loss / len(parts)).backward()
        return torch.cat([p.grad.flatten() for p in model.merhan.fusion.parameters() if p.grad is not None])

    whole = gradient(slice(0, 4))
    assert (gradient(slice(0, 2), slice(2, 4)) - whole).norm() < 1e-4 * whole.norm()


# --- padding, masks, attention ---


@pytest.mark.parametrize(("kind", "variant"), [("light", {}), ("group", {}), *FUSED])
def test_a_row_alone_equals_the_row_in_a_padded_batch(kind, variant, make_model, batch):
    model = make_model(kind, **variant)
    together = logits_of(model, batch)
    for row in range(3):
        torch.testing.assert_close(logits_of(model, row_of(batch, row))[0], together[row], **TOLERANCE)


@pytest.mark.parametrize("variant", [{}, *VARIANTS[:-1]])  # a mixture is of layers, which are not given
def test_what_stands_in_the_padding_does_not_matter(variant, make_model, batch):
    model = make_model("layer", **variant)
    before = logits_of(model, batch)
    batch["input_ids"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"], 17)
    features = model.merhan.encode("audio", batch["input_values"], batch["audio_attention_mask"])
    noisy = torch.where(features.mask[..., None], features.states, 1e3)
    given = {"audio_features": noisy, "audio_features_mask": features.mask}
    texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(logits_of(model, {**given, **texts}), before, **TOLERANCE)


@pytest.mark.parametrize(("kind", "variant"), BOTH)
@pytest.mark.parametrize("masked", [True, False])
def test_eager_equals_sdpa(kind, variant, masked, make_model, batch):
    if not masked:
        batch = {"input_values": batch["input_values"][:2], "input_ids": batch["input_ids"][:2]}
    model = make_model(kind, **variant)
    sdpa = logits_of(model, batch)
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == model.config.text_config._attn_implementation == "eager"
    torch.testing.assert_close(logits_of(model, batch), sdpa, **TOLERANCE)


@pytest.mark.parametrize(("kind", "variant"), FUSED)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("missing", ["audio", "text"])
def test_a_missing_modality_is_finite_and_is_the_learnt_token(
    kind, variant, implementation, missing, make_model, batch
):
    model = make_model(kind, **variant)
    model.set_attn_implementation(implementation)
    mask = {"audio": "audio_attention_mask", "text": "attention_mask"}[missing]
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    batch[mask] = torch.zeros_like(batch[mask])
    masked = logits_of(model, batch)
    absent = {"audio": "input_values", "text": "input_ids"}[missing]
    left_out = logits_of(model, {name: tensor for name, tensor in batch.items() if name not in (mask, absent)})
    assert masked.isfinite().all()
    torch.testing.assert_close(masked, left_out, **TOLERANCE)
    with torch.no_grad():
        getattr(model.merhan.fusion, f"missing_{missing}").normal_()
    assert not torch.allclose(logits_of(model, batch), masked), "the token must matter"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_maps_come_by_name(implementation, make_model, batch):
    model = make_model("layer")
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        outputs = model(**batch, output_attentions=True)
    torch.testing.assert_close(outputs.logits, logits_of(model, batch), **TOLERANCE)
    frames, tokens = outputs.attentions["audio_to_text"].shape[2:]
    shapes = {name: tuple(weights.shape) for name, weights in outputs.attentions.items()}
    assert shapes == {
        "audio_local": (3, 2, frames, frames),
        "text_local": (3, 2, 12, 12),
        "audio_to_text": (3, 2, frames, 12),
        "text_to_audio": (3, 2, 12, frames),
        "global": (3, 2, frames + tokens, frames + tokens),
    }
    for weights in outputs.attentions.values():
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert outputs.attentions["audio_to_text"][0, :, :, 7:].abs().max() == 0, "padding gets no weight"


def test_the_first_position_of_memocmt_is_that_of_the_words(make_model):
    """Their CLS, as in its public code; the first frame would be silence."""
    fusion = make_model("layer", fusion="memocmt", pooling="first").merhan.fusion
    fusion.cross = lambda inputs, maps: inputs
    frames, tokens = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    inputs = {
        "audio": Modality(frames, torch.ones(2, 5, dtype=torch.bool)),
        "text": Modality(tokens, torch.ones(2, 3, dtype=torch.bool)),
    }
    assert torch.equal(fusion.fuse(inputs, None), fusion.pooling(inputs["text"]))


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("cross", {"audio_to_text", "text_to_audio"}),
        ("concat", set()),
        ("gated", set()),
        ("adaptive", {"modalities"}),
        ("attention_pooling", {"audio_pooling", "text_pooling"}),
        ("fine_grained", {"audio_to_text", "text_to_audio"}),
        ("memocmt", {"audio_to_text", "text_to_audio"}),
        ("modality_tokens", {"joint_0", "joint_1"}),
    ],
)
def test_every_fusion_names_its_attention(name, maps, make_model, batch):
    model = make_model("layer", fusion=name)
    with torch.no_grad():
        outputs = model(**batch, output_attentions=True)
    torch.testing.assert_close(outputs.logits, logits_of(model, batch), **TOLERANCE)
    assert set(outputs.attentions) == maps
    for weights in outputs.attentions.values():
        assert weights.dim() == 4 and weights.shape[0] == 3
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_the_configuration_names_the_fusions_that_exist():
    assert tuple(FUSIONS) == CHOICES["fusion"]


@pytest.mark.parametrize("name", FUSIONS)
def test_both_modalities_matter_to_every_fusion(name, make_model, batch):
    model = make_model("layer", fusion=name)
    before = logits_of(model, batch)[1]
    for part in ("input_values", "input_ids"):
        changed = {**batch, part: batch[part].flip(1)}
        assert (logits_of(model, changed)[1] - before).abs().max() > 1e-3, part


def test_adaptive_weights_read_whether_a_modality_is_there(make_model, batch):
    model = make_model("layer", fusion="adaptive")
    with torch.no_grad():
        layer = model.merhan.fusion.reliability
        layer.weight.zero_()
        layer.weight[0, -1] = 3.0  # what stands last is presence
        weights = model(**batch, output_attentions=True).attentions["modalities"][:, 0, 0]
    surely = torch.tensor([3.0, 0.0]).softmax(dim=0)
    torch.testing.assert_close(weights, torch.stack([torch.full((2,), 0.5), torch.full((2,), 0.5), surely.flip(0)]))


def test_only_the_hybrid_fusion_has_parts(make_model):
    names = {
        part: {
            name.split(".")[0] for name, _ in make_model("layer", fusion_parts=[part]).merhan.fusion.named_parameters()
        }
        for part in ("local", "cross", "global")
    }
    shared = set.intersection(*names.values())
    assert {part: own - shared for part, own in names.items()} == {
        "local": {"audio_local", "text_local"},
        "cross": {"audio_to_text", "text_to_audio"},
        "global": {"global_attention"},
    }


@pytest.mark.parametrize("field", [{"fusion": "hybird"}, {"pooling": "average"}, {"fusion_parts": ["locale"]}])
def test_unknown_choices_are_refused_by_name(field):
    with pytest.raises(Exception, match=f"{next(iter(field))}: unknown"):
        tiny_config(**field)


# --- pooling, mixing ---


def pooled_by(kind, states, mask):
    """What pooling gives before its dense layer."""
    pooling = MerhanPooling(tiny_config(pooling=kind))
    pooling.norm = pooling.dense = nn.Identity()
    pooling.dense.weight = torch.zeros(())  # whose precision it takes
    with torch.no_grad():
        return pooling(Modality(states, mask))


def test_pooling_is_what_its_name_says():
    states, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()
    for row, real in enumerate((slice(0, 3), slice(1, 5))):
        own = states[row, real]
        expected = {
            "mean": own.mean(dim=0),
            "mean_std": torch.cat([own.mean(dim=0), own.std(dim=0, correction=0)]),
            "first": own[0],
            "min": own.amin(dim=0),
            "max": own.amax(dim=0),
        }
        for kind, vector in expected.items():
            torch.testing.assert_close(pooled_by(kind, states, mask)[row], vector, msg=kind)


def test_layer_mixing_begins_as_the_mean_and_can_choose_a_layer(make_model, batch):
    model = make_model("light", layer_mixing=True)
    own = {name for name, _ in model.merhan.named_parameters(recurse=False)}
    assert own == {"audio_mixing", "text_mixing"}
    encoded = {"audio": model.merhan.encode("audio", batch["input_values"][:2]).states}
    encoded["text"] = model.merhan.encode("text", batch["input_ids"][:2]).states
    for name, values in (("audio", batch["input_values"][:2]), ("text", batch["input_ids"][:2])):
        backbone, mixing = getattr(model.merhan, f"{name}_backbone"), getattr(model.merhan, f"{name}_mixing")
        mask = torch.ones_like(values, dtype=torch.long)
        layers = backbone(values, attention_mask=mask, output_hidden_states=True)
        assert len(layers.hidden_states) == len(mixing) == 3
        torch.testing.assert_close(encoded[name], torch.stack(layers.hidden_states).mean(dim=0), **TOLERANCE)
        with torch.no_grad():
            mixing[2] = 50.0
        torch.testing.assert_close(
            model.merhan.encode(name, values, mask).states, layers.last_hidden_state, **TOLERANCE
        )


def test_layer_mixing_refuses_features_of_the_last_layer(make_model, batch):
    model = make_model("layer", layer_mixing=True)
    with pytest.raises(ValueError, match="layer_mixing"):
        model(audio_features=torch.randn(2, 7, 16), input_ids=batch["input_ids"][:2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_can_be_traced_for_compilation(kind, make_model, batch):
    model = make_model(kind)
    compiled = torch.compile(
        model, backend="eager"
    )  # what torch.compile traces, without the minutes of code generation
    torch.testing.assert_close(logits_of(compiled, batch), logits_of(model, batch), **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(kind, dtype, make_model, batch):
    """`from_pretrained(..., dtype=...)` for use; near what whole precision says, as far as the mantissa goes."""
    model = make_model(kind).eval()
    expected = logits_of(model, batch)
    torch.testing.assert_close(logits_of(model.to(dtype), batch).float(), expected, atol=0.06, rtol=0.06)


def test_cached_features_equal_raw_input(make_model, batch):
    model = make_model("layer")
    with torch.no_grad():
        audio = model.merhan.encode("audio", batch["input_values"], batch["audio_attention_mask"])
        text = model.merhan.encode("text", batch["input_ids"], batch["attention_mask"])
    features = {
        "audio_features": audio.states,
        "audio_features_mask": audio.mask,
        "text_features": text.states,
        "text_features_mask": text.mask,
    }
    assert torch.equal(logits_of(model, features), logits_of(model, batch))


@pytest.mark.parametrize("variant", [{}, *VARIANTS])
@pytest.mark.parametrize(("kind", "text"), [("light", False), (None, True)])
def test_single_modality_models(kind, text, variant, make_model, batch):
    model = make_model(kind, text, **variant)
    own = {
        name: batch[name][:2]
        for name in (("input_ids", "attention_mask") if text else ("input_values", "audio_attention_mask"))
    }
    assert logits_of(model, own).isfinite().all()
    with pytest.raises(ValueError, match="This model reads"):
        model(**{name: tensor[:2] for name, tensor in batch.items() if name not in own})


def test_frozen_backbones_stay_in_eval_mode(make_model):
    model = make_model("layer")
    model.merhan.audio_backbone.requires_grad_(False)
    model.train()
    assert model.training and model.merhan.text_backbone.training
    assert not any(module.training for module in model.merhan.audio_backbone.modules())


def test_modality_dropout_takes_at_most_one(make_model, batch):
    model = make_model("layer", modality_dropout=0.5).train()
    audio = model.merhan.encode("audio", batch["input_values"], batch["audio_attention_mask"])
    text = model.merhan.encode("text", batch["input_ids"], batch["attention_mask"])
    torch.manual_seed(0)
    lost = torch.zeros(2, 3)
    for _ in range(400):
        kept = model.merhan._drop_modalities(audio, text)
        present = torch.stack([kept["audio"].mask.any(dim=1), kept["text"].mask.any(dim=1)])
        assert present.any(dim=0).all(), "no row loses both"
        lost += ~present
    share = lost[:, :2] / 400
    assert ((share - 0.25).abs() < 0.08).all(), "each modality of a whole row is lost a quarter of the time"
    assert lost[1, 2] == 0, "a row with words alone keeps them"


# --- loss ---


def test_loss_is_cross_entropy_and_takes_distributions():
    logits, ids = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    config = tiny_config()
    torch.testing.assert_close(emotion_loss(logits, ids, config), torch.nn.functional.cross_entropy(logits, ids))
    soft = torch.rand(5, 4).softmax(dim=-1)
    torch.testing.assert_close(emotion_loss(logits, soft, config), torch.nn.functional.cross_entropy(logits, soft))
    smoothed = tiny_config(label_smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(logits, ids, label_smoothing=0.1)
    torch.testing.assert_close(emotion_loss(logits, ids, smoothed), expected)


def test_loss_weights_and_focal_factor():
    logits, ids = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    rows = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
    weighted = tiny_config(class_weights=weights.tolist())
    torch.testing.assert_close(emotion_loss(logits, ids, weighted), (rows * weights[ids]).mean())
    certainty = logits.softmax(dim=-1)[torch.arange(5), ids]
    focal = tiny_config(focal_gamma=2.0)
    torch.testing.assert_close(emotion_loss(logits, ids, focal), (rows * (1 - certainty) ** 2).mean())


def test_concordance_loss_is_lins_and_skips_what_is_not_annotated():
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, requires_grad=True), 2 * torch.randn(6, 3) + 1
    y[:2, 1] = y[1:, 2] = torch.nan  # of the last dimension one row is annotated: no agreement to speak of
    expected = []
    for a, b in ((x[:, 0], y[:, 0]), (x[2:, 1], y[2:, 1])):
        a, b = a.detach().numpy(), b.numpy()
        ccc = 2 * np.cov(a, b, bias=True)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
        expected.append(1 - ccc)
    loss = concordance_loss(x, y)
    assert loss.item() == pytest.approx(np.mean(expected), abs=1e-5)
    loss.backward()
    assert x.grad.isfinite().all() and x.grad[2:, 1].abs().min() > 0
    assert x.grad[:2, 1].abs().max() == x.grad[:, 2].abs().max() == 0
    assert concordance_loss(x, x.detach()).item() == pytest.approx(0, abs=1e-5)
    nothing = concordance_loss(x, torch.full((6, 3), torch.nan))
    nothing.backward()
    assert nothing == 0 and x.grad.isfinite().all()


def test_dimensions_have_a_head_and_a_share_of_the_loss(make_model, batch):
    model = make_model("layer", dimensions=["valence", "arousal"], dimension_weight=0.5)
    labels, targets = torch.tensor([0, 1, 2]), torch.tensor([[0.1, 3.0], [0.5, torch.nan], [0.9, 1.0]])
    plain, both = model(**batch, labels=labels), model(**batch, labels=labels, dimension_targets=targets)
    assert both.dimensions.shape == (3, 2) and torch.equal(plain.logits, both.logits)
    extra = 0.5 * concordance_loss(both.dimensions, targets)
    torch.testing.assert_close(both.loss, plain.loss + extra)
    both.loss.backward()
    assert model.regressor.weight.grad.abs().min() > 0
    assert "dimensions" not in make_model("layer")(**batch), "Trainer.predict must return the logits alone"


# --- backbones ---


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """One saved checkpoint per architecture that people start from."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    conv = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_conv_pos_embeddings": 16}
    conv["num_conv_pos_embedding_groups"] = 2
    models = {
        "wav2vec2": Wav2Vec2Model(audio_config("layer")),
        "wav2vec2-ctc": Wav2Vec2ForCTC(audio_config("layer")),
        "hubert": HubertModel(HubertConfig(**small, **conv)),
        "wavlm": WavLMModel(WavLMConfig(**small, **conv)),
        "roberta": RobertaModel(text_config()),
        "roberta-lm": RobertaForMaskedLM(text_config()),
        "bert-lm": BertForMaskedLM(BertConfig(vocab_size=64, **small)),
        "distilbert": DistilBertModel(DistilBertConfig(vocab_size=64, dim=16, n_layers=1, n_heads=2, hidden_dim=32)),
    }
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("audio", ["wav2vec2", "wav2vec2-ctc", "hubert", "wavlm", None])
@pytest.mark.parametrize("text", ["roberta", "roberta-lm", "bert-lm", "distilbert", None])
def test_backbone_weights_arrive(audio, text, checkpoints, batch):
    if audio is None and text is None:
        with pytest.raises(ValueError, match="neither"):
            from_backbones(MerhanModel)
        return
    names = {"audio": audio and str(checkpoints / audio), "text": text and str(checkpoints / text)}
    model = from_backbones(MerhanForSequenceClassification, **names, hidden_size=16, num_labels=4).eval()
    for part, name in names.items():
        if name:
            backbone = getattr(model.merhan, f"{part}_backbone")
            expected = AutoModel.from_pretrained(name).state_dict()
            assert all(torch.equal(tensor, expected[key]) for key, tensor in backbone.state_dict().items())
    given = {"input_values": batch["input_values"][:2]} if audio else {}
    given |= {"input_ids": batch["input_ids"][:2]} if text else {}
    assert logits_of(model, given).shape == (2, 4)


@pytest.mark.parametrize("audio", ["wav2vec2", "light"])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_padding_does_not_reach_backbones_that_were_loaded(audio, row, checkpoints, batch):
    """Their attention implementation must survive the composite config: without one they would not be masked."""
    torch.manual_seed(0)
    source = audio_config("light") if audio == "light" else str(checkpoints / audio)
    model = from_backbones(MerhanForSequenceClassification, source, str(checkpoints / "roberta"), hidden_size=16).eval()
    for module in (model, model.merhan.audio_backbone, model.merhan.text_backbone):
        assert module.config._attn_implementation == "sdpa"
    with torch.no_grad():
        model.classifier.weight.mul_(100)
    torch.testing.assert_close(logits_of(model, row_of(batch, row))[0], logits_of(model, batch)[row], **TOLERANCE)


@pytest.mark.parametrize("damage", ["missing", "unexpected"])
@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-ctc"])
def test_damaged_backbones_are_refused_by_key(damage, name, checkpoints, tmp_path):
    model = (Wav2Vec2ForCTC if "ctc" in name else Wav2Vec2Model).from_pretrained(checkpoints / name)
    state = model.state_dict()
    prefix = "wav2vec2." if "ctc" in name else ""
    key = f"{prefix}encoder.layers.1.attention.k_proj.weight"
    if damage == "missing":
        del state[key]
    else:
        key = f"{prefix}encoder.layers.9.attention.k_proj.weight"
        state[key] = torch.zeros(16, 16)
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=key.removeprefix(prefix).replace(".", r"\.")):
        from_backbones(MerhanModel, audio=str(tmp_path))


def test_unknown_config_fields_are_refused_where_a_model_is_made(checkpoints):
    assert tiny_config(hiden_size=8).hiden_size == 8, (
        "a config itself takes any field: it may come from another version"
    )
    with pytest.raises(ValueError, match="no field hiden_size"):
        from_backbones(MerhanModel, audio=str(checkpoints / "wav2vec2"), hiden_size=8)


def test_backbone_config_changes_are_checked(checkpoints):
    model = from_backbones(MerhanModel, audio=str(checkpoints / "wav2vec2"), audio_config={"mask_time_prob": 0.3})
    assert model.audio_backbone.config.mask_time_prob == 0.3
    with pytest.raises(ValueError, match="mask_tiem_prob"):
        from_backbones(MerhanModel, audio=str(checkpoints / "wav2vec2"), audio_config={"mask_tiem_prob": 0.3})


@pytest.mark.parametrize(
    "variant",
    [{"fusion": name} for name in FUSIONS] + [{"class_weights": [1.0, 2.0, 1.0, 1.0], "modality_dropout": 0.5}],
    ids=[*FUSIONS, "class weights, modality dropout"],
)
def test_fusion_and_loss_never_wait_for_a_device(variant, make_model):
    """On the device `meta`, where tensors have no values, reading one is an error: on a GPU it would wait."""
    model = make_model(**variant).train().to("meta")
    lengths = {"audio": 9, "text": 5}
    inputs = {f"{name}_features": torch.empty(4, length, 16, device="meta") for name, length in lengths.items()}
    masks = {f"{name}_features_mask": torch.ones(4, length, device="meta").long() for name, length in lengths.items()}
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    model(**inputs, **masks, labels=labels).loss.backward()
    assert model.classifier.weight.grad.is_meta
