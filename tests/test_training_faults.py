"""Faults of training that were found in use, each with the case that showed it."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import LABEL2ID
from test_training import without_dropout
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.models.inference import machine_defaults
from merhan.recipe.schema import AugmentationRecipe, Recipe, StageRecipe
from merhan.training.arguments import training_arguments
from merhan.training.stage import train_stage
from merhan.training.trainer import MerhanTrainer, fill_rows


RATES = {"head": 1e-3, "audio": 1e-3, "text": 1e-3}


def dataset(demo, processor, size: int, **options) -> EmotionDataset:
    rows = demo.groupby("label").head(-(-size // 4)).head(size)
    return EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"], **options)


def trainer_of(model, processor, data, folder, batch_seconds=None, **options) -> MerhanTrainer:
    options = {
        "report_to": "none",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        **options,
    }
    arguments = TrainingArguments(folder, **options)
    return MerhanTrainer(
        model,
        arguments,
        learning_rates=RATES,
        num_labels=4,
        batch_seconds=batch_seconds,
        train_dataset=data,
        data_collator=Collator(processor),
    )


def gradients_of_steps(trainer) -> list[torch.Tensor]:
    """The gradient of the classifier's bias in every optimizer step of a training that changes no weight."""
    trainer.args.max_grad_norm = 0.0
    gradients = []

    def keep(*_):
        gradients.append(trainer.model.classifier.bias.grad.clone())

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(keep)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.train()
    return gradients


def test_a_moving_average_works_with_checkpoints_of_weights_alone(trained_like, processor, demo, tmp_path):
    """It was written with the optimizer, so `save_only_model` failed at the end of the training."""
    options = {"report_to": "none", "save_only_model": True, "per_device_train_batch_size": 4}
    recipe = Recipe("x", ema_decay=0.9, trainer=options)
    data = dataset(demo, processor, 8)
    model = train_stage(recipe, StageRecipe("one", 2, RATES), 0, trained_like, processor, data, data, tmp_path / "one")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert list((tmp_path / "one").glob("checkpoint-*/ema.safetensors"))
    assert not list((tmp_path / "one").glob("checkpoint-*/optimizer.pt"))


@pytest.mark.parametrize(("rows", "batch", "accumulation"), [(14, 4, 2), (14, 2, 4), (7, 2, 2), (5, 4, 2)])
def test_every_row_weighs_the_same_in_an_incomplete_step(
    rows, batch, accumulation, trained_like, processor, demo, tmp_path
):
    """14 rows in batches of 4, two of which make a step: the last step has 4 and 2 rows, and 2 rows counted as 4."""
    without_dropout(trained_like)
    data = dataset(demo, processor, rows)
    options = {"max_steps": -(-rows // (batch * accumulation)), "gradient_accumulation_steps": accumulation}
    trainer = trainer_of(trained_like, processor, data, tmp_path, per_device_train_batch_size=batch, **options)
    gradients = gradients_of_steps(trainer)
    order = list(trainer._get_train_sampler())
    last = order[(len(order) - 1) // (batch * accumulation) * batch * accumulation :]
    trained_like.zero_grad()
    collated = Collator(processor)([data[row] for row in last])
    trained_like(**collated).loss.backward()
    assert torch.allclose(gradients[-1], trained_like.classifier.bias.grad, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"dimensions": ["valence"]}, {"soft_labels": True}])
def test_the_last_batch_has_the_rows_of_all_others(options, make_model, processor, demo, tmp_path):
    """A GPU takes up to a second for a batch of 2 rows if all others have 4. Votes cannot be left out of a loss."""
    model = make_model(**({"dimensions": ["valence"]} if "dimensions" in options else {}))
    model.merhan.text_backbone = None
    rows = demo.groupby("label").head(2).head(6).assign(valence=[1.0, 2.0, 3.0, 4.0, np.nan, 5.0])
    rows["votes"] = [f'{{"{label}": 2}}' for label in rows["label"]]
    data = EmotionDataset(rows, processor, LABEL2ID, ["audio"], **options)
    trainer = trainer_of(model, processor, data, tmp_path, per_device_train_batch_size=4, num_train_epochs=1)
    seen = []

    def keep(module, args, inputs):
        seen.append(len(inputs["labels"]))

    model.register_forward_pre_hook(keep, with_kwargs=True)
    trainer.train()
    assert seen == ([4, 2] if "soft_labels" in options else [4, 4])


def test_rows_that_fill_a_batch_change_neither_loss_nor_gradient(make_model, processor, demo):
    model = without_dropout(make_model(dimensions=["valence"])).train()
    rows = demo.groupby("label").head(1).head(3).assign(valence=[1.0, 2.0, np.nan])
    data = EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"], dimensions=["valence"])
    batch = Collator(processor)([data[row] for row in range(3)])
    batch["input_ids"] = batch["input_ids"].clamp(max=63)
    losses, gradients = [], []
    for inputs in (batch, fill_rows(batch, 8)):
        model.zero_grad()
        losses.append(model(**inputs).loss)
        losses[-1].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert len(inputs["labels"]) == 8
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-3)


def test_learned_tokens_and_mixing_weights_do_not_decay(make_model, processor, demo, tmp_path):
    model = make_model(layer_mixing=True)
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    assert {"missing_audio", "missing_text", "audio_mixing", "text_mixing"} <= names
    trainer = trainer_of(model, processor, dataset(demo, processor, 4), tmp_path, weight_decay=0.1)
    decayed = set(trainer.get_decay_parameter_names(model))
    assert not [name for name in decayed if "missing_" in name or "_mixing" in name]
    assert "classifier.weight" in decayed and "merhan.fusion.audio_projection.weight" in decayed


def test_persistent_workers_draw_the_augmentation_of_their_epoch(processor, demo):
    """A copy of the epoch's number in each worker would freeze the augmentation."""
    recipe = AugmentationRecipe(gain=[-20.0, 20.0])
    data = dataset(demo, processor, 4, augmentation=recipe)
    loader = DataLoader(data, batch_size=4, collate_fn=list, num_workers=1, persistent_workers=True)
    for epoch in range(3):
        data.epoch = epoch
        (batch,) = list(loader)
        for index, example in enumerate(batch):
            assert np.array_equal(example["audio"], data[index]["audio"])


def test_the_keys_of_a_batch_do_not_depend_on_what_its_rows_have(trained_like, processor, demo):
    """Two processes with gradient checkpointing failed where one had a batch without text."""
    rows = demo.groupby("label").head(1)
    mixed = EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"])
    without_audio = EmotionDataset(rows.assign(audio=""), processor, LABEL2ID, ["audio", "text"])
    without_text = EmotionDataset(rows.assign(text=""), processor, LABEL2ID, ["audio", "text"])
    collate = Collator(processor)
    batches = [collate([data[row] for row in range(4)]) for data in (mixed, without_audio, without_text)]
    assert set(batches[0]) == set(batches[1]) == set(batches[2])
    assert not batches[1]["audio_attention_mask"].any() and not batches[2]["attention_mask"].any()
    trained_like.eval()
    with torch.no_grad():
        masked = trained_like(**batches[1]).logits
        absent = trained_like(**{key: batches[1][key] for key in ("input_ids", "attention_mask")}).logits
    assert torch.allclose(masked, absent, atol=1e-5), "a masked modality is a missing one"


def test_running_out_of_memory_names_the_batch_and_the_remedy(trained_like, processor, demo, tmp_path, monkeypatch):
    data = dataset(demo, processor, 4)
    monkeypatch.setattr(type(trained_like), "forward", Mock(side_effect=torch.OutOfMemoryError("CUDA")))
    trainer = trainer_of(trained_like, processor, data, tmp_path / "a", per_device_train_batch_size=2)
    with pytest.raises(InputError, match=r"input_values \(2, \d+\).*per_device_train_batch_size below 2"):
        trainer.train()


@pytest.mark.parametrize(("bf16", "fp16", "hides"), [(False, False, False), (True, False, False), (False, True, True)])
def test_only_in_fp16_a_loss_that_is_not_finite_is_passed_over(bf16, fp16, hides, tmp_path):
    arguments = training_arguments(tmp_path, {"bf16": bf16, "fp16": fp16, "use_cpu": True}, 1, "uar", 0)
    assert arguments.logging_nan_inf_filter is hides
    chosen = training_arguments(tmp_path, {"logging_nan_inf_filter": not hides}, 1, "uar", 0)
    assert chosen.logging_nan_inf_filter is not hides, "the recipe's own word"


def test_a_training_that_diverges_ends_at_the_next_log(trained_like, processor, demo, tmp_path):
    train, validation = dataset(demo, processor, 16), dataset(demo, processor, 4)
    recipe = Recipe(run_name="x", trainer={"report_to": "none", "per_device_train_batch_size": 2, "logging_steps": 2})
    trained_like.classifier.bias.data.fill_(torch.nan)
    with pytest.raises(InputError, match=r"loss of the training is nan in the steps before step 2: .* learning rate"):
        train_stage(
            recipe, StageRecipe("x", 1, RATES), 0, trained_like, processor, train, validation, tmp_path / "stage"
        )
    assert not list(tmp_path.rglob("checkpoint-*")), "and leaves none to resume from"


def test_the_machine_chooses_what_the_recipe_does_not_say(monkeypatch):
    assert machine_defaults({}) == {}, "nothing without a GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert machine_defaults({}) == {"dataloader_num_workers": 4, "bf16": True, "tf32": True}
    assert machine_defaults({"bf16": False, "tf32": False, "dataloader_num_workers": 0}) == {}
    assert machine_defaults({"fp16": True})["bf16"] is False and machine_defaults({"use_cpu": True}) == {}
