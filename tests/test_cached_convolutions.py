"""`cache_feature_encoder`: the frozen convolutions of a speech backbone, computed once per utterance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_families import AUDIO, LEAKING, audio_parts
from test_training import without_dropout

from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import AugmentationRecipe, Recipe, StageRecipe
from merhan.training.feature_cache import read_convolutions, use_cached_convolutions
from merhan.training.stage import train_stage
from modeling_merhan import MerhanForSequenceClassification


# Without those that mix padding into real frames, of which a cached batch may have one frame less.
OTHERS = LEAKING | {"whisper", "wav2vec2-bert"}
WITH_CONVOLUTIONS = [(family, fields) for family, fields in AUDIO if family not in OTHERS]
STAGE = StageRecipe("finetune", 2, {"head": 1e-3, "audio": 1e-3}, cache_feature_encoder=True)
OPTIONS = {"report_to": "none", "logging_steps": 1, "load_best_model_at_end": False, "save_strategy": "no"}


def rows_without_one_sound(demo, processor, model) -> tuple[EmotionDataset, EmotionDataset]:
    rows = demo.head(4).copy()
    rows.loc[rows.index[2], "audio"] = ""
    return tuple(EmotionDataset(rows, processor, model.config.label2id, ["audio"]) for _ in range(2))


@pytest.mark.parametrize(("precision", "tolerance"), [(None, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("family", "fields"), WITH_CONVOLUTIONS)
def test_every_family_gives_the_same_from_the_cache(family, fields, precision, tolerance, demo):
    _, model, processor = audio_parts(demo, family, **fields)
    data, cached = rows_without_one_sound(demo, processor, model)
    batch = Collator(processor)([data[row] for row in range(4)])
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision is not None):
        expected = model(**batch).logits.float()
        use_cached_convolutions(model.merhan, cached, torch.device("cpu"), precision)
        read_convolutions(model.merhan)
        batch = Collator(processor)([cached[row] for row in range(4)])
        read = model(**batch).logits.float()
    assert "input_values" not in batch
    torch.testing.assert_close(read, expected, atol=tolerance, rtol=tolerance)


def test_a_stage_trains_alike_and_saves_the_convolutions(demo, trained_like, processor, tmp_path, monkeypatch):
    def losses(stage: StageRecipe) -> tuple[list[float], MerhanForSequenceClassification]:
        model = without_dropout(trained_like)
        model.load_state_dict(start)
        train, validation = (
            EmotionDataset(demo[demo["split"] == split].head(12), processor, model.config.label2id, ["audio", "text"])
            for split in ("train", "validation")
        )
        recipe = Recipe(run_name="x", trainer=OPTIONS)
        folder = tmp_path / str(stage.cache_feature_encoder)
        model = train_stage(recipe, stage, 0, model, processor, train, validation, folder)
        logs = (folder / "trainer_state.json").read_text(encoding="utf-8")
        return [float(part.split(",")[0]) for part in logs.split('"loss": ')[1:]], model

    monkeypatch.setattr(trained_like.merhan.audio_backbone.config, "apply_spec_augment", False)
    start = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    plain, _ = losses(replace(STAGE, cache_feature_encoder=False))
    cached, model = losses(STAGE)
    assert len(plain) == 2
    np.testing.assert_allclose(cached, plain, rtol=1e-4)
    saved = {name: tensor for name, tensor in model.state_dict().items() if ".feature_extractor." in name}
    assert saved and all(torch.equal(tensor, start[name]) for name, tensor in saved.items())


@pytest.mark.parametrize(
    ("family", "changes", "augmentation", "reason"),
    [
        ("whisper", {}, {}, "no convolutional encoder"),
        ("wav2vec2", {"freeze_feature_encoder": False}, {}, "the encoder is trained"),
        ("wav2vec2", {"learning_rate": {"head": 1e-3}}, {}, "the whole speech backbone is frozen"),
        ("wav2vec2", {}, {"gain": [-6.0, 6.0]}, "augmentation changes the sound"),
    ],
)
def test_what_cannot_be_cached_is_refused(family, changes, augmentation, reason, demo, tmp_path):
    _, model, processor = audio_parts(demo, family)
    options = {"augmentation": AugmentationRecipe(**augmentation)}
    data = EmotionDataset(demo.head(4), processor, model.config.label2id, ["audio"], **options)
    with pytest.raises(InputError, match=f"cache_feature_encoder: .*{reason}"):
        train_stage(
            Recipe(run_name="x", trainer=OPTIONS), replace(STAGE, **changes), 0, model, processor, data, data, tmp_path
        )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([], "the encoder is trained"),
        (["stages.1.freeze_feature_encoder=true", "stages.1.learning_rate={head: 0.1}"], "the whole speech backbone"),
        (["stages.1.freeze_feature_encoder=true", "data.augmentation.telephone=0.1"], "augmentation changes the sound"),
    ],
)
def test_what_the_recipe_tells_is_refused_before_any_stage(changes, reason):
    with pytest.raises(InputError, match=rf"stages\[1\].cache_feature_encoder: {reason}"):
        load_recipe("configs/quickstart.yaml", ["stages.1.cache_feature_encoder=true", *changes])
