"""Batches of constant seconds: many short utterances or few long ones."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_damage import RECIPE
from test_training import without_dropout
from test_training_faults import dataset, gradients_of_steps, trainer_of
from transformers import TrainerCallback

from merhan.data.collator import Collator
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from merhan.training.sampling import SecondsBatchSampler, batch_sizes


REPOSITORY = Path(__file__).parent.parent
SECONDS = 3.0


@pytest.mark.parametrize("multiple", [1, 2, 3, 8])
@pytest.mark.parametrize("limit", [50, 333, 10_000])
def test_every_epoch_has_each_row_once_in_batches_within_the_limit(limit, multiple):
    rng = np.random.default_rng(limit * multiple)
    samples = rng.choice([5, 20, 45, 80, 125], 200)
    sampler = SecondsBatchSampler(samples, samples, limit, multiple)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) and len(batches) % multiple == 0
        assert sorted(row for batch in batches for row in batch) == list(range(200))
        assert all(len(batch) == 1 or len(batch) * samples[batch].max() <= limit for batch in batches)
        assert samples[batches[0]].max() == 125, "running out of memory shows at once"
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    assert [sorted(map(len, batches)) for batches in epochs[1:]] == [sorted(map(len, epochs[0]))] * 2


@pytest.mark.parametrize(("rows", "limit"), [(2, 100), (3, 1)])
def test_rows_that_the_batches_of_a_step_cannot_share_are_refused(rows, limit):
    with pytest.raises(InputError, match=f"{rows} batches of one row each cannot be shared by 4 processes"):
        batch_sizes(np.full(rows, 5), limit, 4)


def test_a_row_beyond_the_limit_is_a_batch_of_its_own():
    assert batch_sizes(np.array([5, 5, 20, 20]), 10, 1) == [2, 1, 1]


def test_every_row_of_a_step_weighs_the_same(trained_like, processor, demo, tmp_path):
    without_dropout(trained_like)
    data = dataset(demo, processor, 14)
    options = {"max_steps": 2, "gradient_accumulation_steps": 2}
    trainer = trainer_of(trained_like, processor, data, tmp_path, batch_seconds=SECONDS, **options)
    batches = list(trainer.get_train_dataloader().batch_sampler)[:4]
    assert len({len(batch) for batch in batches}) > 1, "rows that weigh the same in batches of different sizes"
    gradients = gradients_of_steps(trainer)
    assert len(gradients) == 2
    for step, gradient in enumerate(gradients):
        rows = batches[2 * step] + batches[2 * step + 1]
        trained_like.zero_grad()
        trained_like(**Collator(processor)([data[row] for row in rows])).loss.backward()
        assert torch.allclose(gradient, trained_like.classifier.bias.grad, atol=1e-5)


class _Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = True
        control.should_training_stop = state.global_step == 3


def test_a_resumed_training_sees_the_same_batches(trained_like, processor, demo, tmp_path):
    data = dataset(demo, processor, 14)
    options = {"batch_seconds": SECONDS, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 100}
    weights = []
    for name in ("whole", "cut"):
        model = deepcopy(trained_like)
        trainer = trainer_of(model, processor, data, tmp_path / name, **options)
        if name == "cut":
            trainer.add_callback(_Stop())
            trainer.train()
            model = deepcopy(trained_like)
            trainer = trainer_of(model, processor, data, tmp_path / name, **options)
            trainer.train(resume_from_checkpoint=str(tmp_path / name / "checkpoint-3"))
        else:
            trainer.train()
        weights.append(model.state_dict())
    assert trainer.state.global_step > 4
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sampling.balance=label", "cannot be combined with sampling.balance"),
        ("sampling.speakers_per_batch=2", "cannot be combined with sampling.speakers_per_batch"),
        ("trainer.auto_find_batch_size=true", "cannot be combined with trainer.auto_find_batch_size"),
        ("trainer.dataloader_drop_last=true", "cannot be combined with trainer.dataloader_drop_last"),
        ("stages.1.trainer={train_sampling_strategy: random}", "trainer.train_sampling_strategy: random"),
        ("model.audio_backbone=null", "the model does not read sound"),
    ],
)
def test_what_it_excludes_is_refused(change, words, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        load_recipe(
            path, ["sampling.batch_seconds=20", "sampling.curriculum=null", "model.audio_backbone=tiny", change]
        )


@pytest.mark.slow
def test_two_processes_equal_two_accumulation_steps(tmp_path):
    """DDP over gloo: the loss of every step, and the weights at the end."""

    def run(name: str, processes: int, accumulation: int) -> tuple[list[float], dict]:
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")
        options = f"gradient_accumulation_steps: {accumulation}, report_to: none, logging_steps: 1, use_cpu: true"
        changes = [f"trainer={{{options}}}", "sampling.batch_seconds=6", "sampling.curriculum=null", f"run_name={name}"]
        changes += [f"model.config.{key}=0" for key in ("hidden_dropout", "attention_dropout", "classifier_dropout")]
        changes += ["model.audio_backbone=light", "model.audio_config.spec_augment_masks=0"]
        changes += [f"model.audio_config.{key}=0" for key in ("hidden_dropout", "attention_dropout")]
        changes += [f"model.text_config.{key}=0" for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")]
        changes += ["stages.1.trainer={}", "stages.1.learning_rate={head: 1.0e-3, audio: 1.0e-3, text: 1.0e-4}"]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        words = ["--config", str(path), *(word for change in changes for word in ("--set", change))]
        command = [sys.executable, *launcher, "train_hf_e2e.py", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        folder = tmp_path / "outputs" / name
        state = json.loads((folder / "full" / "trainer_state.json").read_text())
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        return losses, load_file(folder / "model" / "model.safetensors")

    (one, weights), (two, others) = run("one", 1, 2), run("two", 2, 1)
    assert len(one) == len(two) > 2
    np.testing.assert_allclose(two, one, rtol=1e-3)
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=2e-4, rtol=1e-3)
