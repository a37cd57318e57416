"""Every family of backbones that people use, tiny: build, pad, reload, train; and what padding does to a row."""

import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import LABELS
from transformers import AutoConfig, AutoModel, AutoTokenizer

from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.models.adapters import add_adapters, merge_adapters
from merhan.models.backbones import check_backbones, load_tokenizer, position_limit
from merhan.models.building import build_model, build_processor
from merhan.models.inference import HALF_PRECISION
from merhan.models.tiny_backbones import AUDIO_FAMILIES, TEXT_FAMILIES, TEXT_POSITIONS, tiny_audio, tiny_text
from merhan.recipe.schema import DataRecipe, ModelRecipe, Recipe, StageRecipe
from merhan.training.feature_cache import use_cached_features
from merhan.training.parameter_groups import layers_above, set_trainable
from merhan.training.stage import train_stage
from modeling_merhan import MerhanForSequenceClassification


DATA = DataRecipe(max_seconds=2.0)
# Families that mix padding into real frames upstream, by a convolution or pooling over time that ignores the mask.
LEAKING = {"wav2vec2-conformer", "data2vec-audio", "sew", "sew-d"}
UNUSED = {"wav2vec2-conformer": "pos_conv_embed"}  # parameters of a family that transformers never uses
SHARED_LAYERS = {"albert"}  # all layers have the same weights, so none can have a learning rate of its own
GROUP_NORM = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew", "sew-d")
AUDIO = [(family, {}) for family in AUDIO_FAMILIES]
AUDIO += [(family, {"feat_extract_norm": "group", "do_stable_layer_norm": False}) for family in GROUP_NORM]
FULL_PRECISION_ONLY = {("deberta", "bf16"), ("deberta", "fp16")}
TWO_STEPS = {"report_to": "none", "max_steps": 2, "warmup_steps": 0, "load_best_model_at_end": False}
TEXTS = ["one two three four five six seven eight nine ten", "one two"]


def audio_parts(demo, family: str, **fields):
    """Model and processor of speech alone over a tiny checkpoint."""
    return parts(
        demo, ModelRecipe(audio_backbone=str(tiny_audio(family, seconds=2, **fields)), config={"hidden_size": 32})
    )


def text_parts(demo, family: str):
    """Model and processor of text alone over a tiny checkpoint."""
    return parts(demo, ModelRecipe(text_backbone=str(tiny_text(demo["text"], family)), config={"hidden_size": 32}))


def parts(demo, recipe: ModelRecipe):
    torch.manual_seed(0)
    model, processor = build_model(recipe, LABELS, demo), build_processor(recipe, DATA, demo)
    with torch.no_grad():
        for parameter in model.merhan.fusion.parameters():
            parameter.mul_(3)  # so that differences of the backbone's output reach the logits
    return recipe, model.eval(), processor


def sounds() -> list[dict]:
    rng = np.random.default_rng(0)
    return [{"array": 0.1 * rng.standard_normal(size), "sampling_rate": 16_000} for size in (30_000, 13_000)]


def require_family(recipe, model, processor, inputs: dict, tmp_path, leaks: bool = False):
    """What holds for every family: see the assertions."""
    check_backbones(model, processor, recipe)
    batch = processor(**inputs)
    with torch.no_grad():
        together = model(**batch).logits
        alone = model(**processor(**{name: values[1] for name, values in inputs.items()})).logits
    assert together.isfinite().all()
    difference = (together[1:] - alone).abs().max().item()
    assert (difference > 1e-5) == leaks, f"a row alone and the same row padded differ by {difference:.1e}"

    model.save_pretrained(tmp_path / "model")
    again = MerhanForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, together), "fresh and reloaded give the same logits"

    (modality,) = model.config.modalities
    rates = {"head": 1e-3, modality: 1e-3}
    set_trainable(model, rates, freeze_feature_encoder=False)
    model.train()
    model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    backbone = getattr(model.merhan, f"{modality}_backbone")
    family = backbone.config.model_type
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    unused = UNUSED.get(family)
    assert not [name for name in without if not unused or unused not in name], "every parameter gets a gradient"
    if family not in SHARED_LAYERS:
        assert max(layers_above(model, modality).values()) >= 1, "layers are distinguished, for layer decay"

    adapters = add_adapters(model, {modality: {"r": 2}}, [modality])
    with torch.no_grad():
        assert any("lora_" in name for name, _ in model.named_parameters())
        for adapter in (module for name, module in model.named_modules() if name.endswith("lora_B.default")):
            adapter.weight.normal_(std=0.1)
        adapted = model.eval()(**batch).logits
        assert not torch.allclose(adapted, together, atol=1e-4), "the adapters take part"
        merge_adapters(adapters)
        assert torch.allclose(model(**batch).logits, adapted, atol=1e-4), "merged, they give the same"
    assert not any("lora_" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("family", "fields"), AUDIO, ids=[f"{name}{'-group' * bool(fields)}" for name, fields in AUDIO]
)
def test_speech(family, fields, demo, tmp_path):
    recipe, model, processor = audio_parts(demo, family, **fields)
    require_family(recipe, model, processor, {"audio": sounds()}, tmp_path, leaks=family in LEAKING)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_text(family, demo, tmp_path):
    recipe, model, processor = text_parts(demo, family)
    require_family(recipe, model, processor, {"text": TEXTS}, tmp_path)


@pytest.mark.parametrize("offset", [0.0, 3.0], ids=["centred", "offset"])
@pytest.mark.parametrize("family", GROUP_NORM)
def test_group_norm_ignores_padding_and_changes_nothing_else(family, offset, demo):
    """Upstream, statistics over padding make real frames too large; without padding ours equal upstream's."""
    path = tiny_audio(family, seconds=2, feat_extract_norm="group", do_stable_layer_norm=False)
    upstream = AutoModel.from_pretrained(path).eval()
    _, model, _ = audio_parts(demo, family, feat_extract_norm="group", do_stable_layer_norm=False)
    values = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) + offset
    mask = torch.ones(2, 16_000, dtype=torch.long)
    with torch.no_grad():
        expected = upstream(values, attention_mask=mask).last_hidden_state
        assert torch.allclose(model.merhan.encode("audio", values, mask).states, expected, atol=1e-5)
        mask[1, 5_000:] = 0
        padded = model.merhan.encode("audio", values * mask, mask)
        alone = upstream(values[1:, :5_000], attention_mask=mask[1:, :5_000]).last_hidden_state[0]
        before = upstream(values * mask, attention_mask=mask).last_hidden_state[1, : len(alone)]
    assert padded.mask[1].sum() == len(alone)
    assert torch.allclose(padded.states[1][padded.mask[1]], alone, atol=1e-5)
    assert (before - alone).abs().max() > 1e-3, "which upstream does not give"


@pytest.mark.parametrize("layer_mixing", [False, True])
@pytest.mark.parametrize("family", ["whisper", "wav2vec2-bert"])
def test_spectrogram_encoders_train_both_stages(family, layer_mixing, demo, tmp_path):
    backbone = str(tiny_audio(family, seconds=2))
    config = {"hidden_size": 32, "intermediate_size": 32, "layer_mixing": layer_mixing}
    model_recipe = ModelRecipe(audio_backbone=backbone, text_backbone="tiny", config=config)
    stages = [
        StageRecipe("warmup", 1, {"head": 1e-3}, cache_features=not layer_mixing),
        StageRecipe("finetune", 1, {"head": 1e-3, "audio": 1e-3, "text": 1e-3}),
    ]
    recipe = Recipe("x", model=model_recipe, stages=stages, trainer=TWO_STEPS)
    _, model, processor = parts(demo, model_recipe)
    rows = demo.groupby("label").head(4)
    data = [EmotionDataset(rows, processor, model.config.label2id, ["audio", "text"]) for _ in range(2)]
    for number, stage in enumerate(stages):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model = train_stage(recipe, stage, number, model, processor, *data, tmp_path / stage.name)
        moved = {
            name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
        }
        assert moved
        assert ("audio_backbone" in moved) == (stage.name == "finetune")


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-bert", "wav2vec2"])
def test_cached_features_are_those_of_the_batch(family, demo):
    _, model, processor = audio_parts(demo, family, **({"feat_extract_norm": "group"} if family == "wav2vec2" else {}))
    rows = demo.head(4)
    data, cached = (EmotionDataset(rows, processor, model.config.label2id, ["audio"]) for _ in range(2))
    use_cached_features(model.merhan, cached, "audio", torch.device("cpu"))
    collate = Collator(processor)
    with torch.no_grad():
        fresh, read = (model(**collate([rows[row] for row in range(4)])).logits for rows in (data, cached))
    assert torch.allclose(fresh, read, atol=2e-3), "the cache is in half precision"


@pytest.mark.parametrize("family", ["wav2vec2-bert", "wav2vec2"])
def test_fixed_lengths_count_the_frames_of_the_extractor(family, demo):
    """w2v-BERT 2.0 joins pairs of frames after padding, so `max_length` gave half the length, and short sound alone."""
    _, _, processor = audio_parts(demo, family)
    for samples in (8_000, 20_001, 32_000):
        sound = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
        exact = processor.pad([sound], [None])
        on_grid, fixed = (processor.pad([sound], [None], padding=kind) for kind in ("grid", "max_length"))
        seconds = processor.shape(samples, 0)[0] / 16_000
        for padded, length in ((on_grid, seconds), (fixed, processor.max_seconds)):
            assert padded["audio_attention_mask"].shape[1] == round(length / processor.seconds_per_step)
            assert padded["audio_attention_mask"].sum() == exact["audio_attention_mask"].sum()


def test_whisper_refuses_more_than_it_reads(demo):
    recipe = ModelRecipe(audio_backbone=str(tiny_audio("whisper", seconds=2)))
    for longest in (None, 12.0):
        with pytest.raises(InputError, match="data.max_seconds .* reads at most 2 s"):
            build_processor(recipe, DataRecipe(max_seconds=longest), demo)


@pytest.mark.parametrize(
    ("family", "limit"),
    [("bert", 0), ("roberta", 2), ("camembert", 2), ("mpnet", 2), ("distilbert", 0), ("bart", 0), ("t5", None)],
)
def test_positions_are_read_from_the_model(family, limit, demo, tmp_path):
    """RoBERTa and related families lose two positions to their padding id, BERT none, T5 has no limit."""
    path = tmp_path / "backbone"
    shutil.copytree(tiny_text(demo["text"], family), path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.model_max_length = 10_000  # as some published tokenizers declare far more than their model reads
    tokenizer.save_pretrained(path)
    expected = None if limit is None else TEXT_POSITIONS - limit
    assert position_limit(AutoConfig.from_pretrained(path)) == expected
    assert load_tokenizer(str(path)).model_max_length == (expected or 10_000)


def test_a_backbone_that_cannot_encode_is_refused_by_key_and_family(demo):
    recipe, model, processor = text_parts(demo, "bert")
    model.merhan.text_backbone.forward = Mock(side_effect=TypeError("no such argument"))
    with pytest.raises(InputError, match=r"model.text_backbone: .*family bert.* cannot encode text: no such argument"):
        check_backbones(model, processor, recipe)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("modality", "family"),
    [("audio", family) for family in AUDIO_FAMILIES] + [("text", family) for family in TEXT_FAMILIES],
)
def test_a_backbone_that_cannot_compute_in_half_precision_is_refused_before_training(modality, family, precision, demo):
    recipe, model, processor = text_parts(demo, family) if modality == "text" else audio_parts(demo, family)
    if (family, precision) not in FULL_PRECISION_ONLY:
        check_backbones(model, processor, recipe, {precision: HALF_PRECISION[precision]})
        return
    with pytest.raises(
        InputError, match=f"family {family}.* cannot compute in {precision}: .*; set trainer.{precision}: false"
    ):
        check_backbones(model, processor, recipe, {precision: HALF_PRECISION[precision]})


def test_the_page_of_backbones_lists_what_was_tested():
    page = (Path(__file__).parent.parent / "docs" / "backbones.md").read_text(encoding="utf-8")
    for title, families, leaking in (("## Speech", AUDIO_FAMILIES, LEAKING), ("## Text", TEXT_FAMILIES, set())):
        table = page.split(title)[1].split("\n## ")[0]
        rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (yes|no)\b.* \|$", table, re.MULTILINE))
        assert rows == {family: "no" if family in leaking else "yes" for family in families}


def test_the_table_of_the_readme_lists_what_was_tested():
    page = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    for title, families, leaking in (("speech", AUDIO_FAMILIES, LEAKING), ("text", TEXT_FAMILIES, set())):
        row = re.search(rf"^\| {title} \| (.*) \|$", page, re.MULTILINE).group(1)
        marked = {family + r"\*" * (family in leaking) for family in families}
        assert set(row.split(", ")) == marked
