"""The Hugging Face Trainer with our batches, rates and checkpoints."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from merhan.dataset import Collator, EmotionDataset
from merhan.errors import require_finite
from merhan.feature_cache import use_cached_features
from merhan.history import record
from merhan.metrics import SCORES, EmotionMetrics
from merhan.recipe import Recipe, StageRecipe
from merhan.report import TITLES
from merhan.sampling import LengthBucketSampler
from merhan.stages import freeze, frozen_modalities, parameter_groups
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.1,  # a share of the steps
    "weight_decay": 0.01,
    "logging_steps": 10,
    "dataloader_pin_memory": torch.cuda.is_available(),
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,  # the best one is kept beside the last
    "load_best_model_at_end": True,
    "report_to": "tensorboard",
    "remove_unused_columns": False,
    "train_sampling_strategy": "group_by_length",  # or `random`: more padding, and batches that chance alone makes
    "restore_callback_states_from_checkpoint": True,
}


class MerhanTrainer(Trainer):
    """Batches by length or by chance in training, data order in evaluation, one learning rate per parameter group.

    A new one for each stage: an optimizer knows only the parameters that could train when it was made.
    """

    def __init__(self, *args, learning_rates: Mapping[str, float], num_labels: int, **kwargs):
        self.learning_rates = learning_rates
        super().__init__(*args, compute_metrics=lambda outputs: compute_metrics(outputs, num_labels), **kwargs)

    def _get_train_sampler(self, train_dataset=None) -> torch.utils.data.Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return _EpochSampler(
            dataset,
            self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            self.args.seed,
            1 if self.args.train_sampling_strategy == "random" else 50,
        )

    def _get_eval_sampler(self, eval_dataset) -> torch.utils.data.Sampler:
        return SequentialSampler(eval_dataset)  # Trainer's own would group rows by length here too

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        model = self.model if model is None else model
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.learning_rates, decayed, self.args.weight_decay)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Not estimated: transformers counts tokens of one input, and ours are two, or features."""
        return 0


class Progress(ProgressCallback):
    """A bar over the steps, and one line per epoch; the many training figures go to the reporter alone."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "eval_loss" in logs:
            scores = "  ".join(f"{TITLES[name]} {logs[f'eval_{name}']:.3f}" for name in SCORES)
            losses = [f"loss {entry['loss']:.3f}  " for entry in state.log_history if "loss" in entry]
            line = f"epoch {logs['epoch']:g}  {''.join(losses[-1:])}validation {scores}"
            self.training_bar.write(line)
            sys.stdout.flush()


class _EpochSampler(LengthBucketSampler):
    """Tells the data set which epoch it is, for its draws of augmentation."""

    def __init__(self, dataset, batch_size: int, seed: int, batches_per_bucket: int):
        super().__init__(dataset.lengths, batch_size, seed, batches_per_bucket)
        self.dataset = dataset

    def set_epoch(self, epoch: int):
        super().set_epoch(epoch)
        self.dataset.epoch = epoch


def compute_metrics(outputs: EvalPrediction, num_labels: int) -> dict[str, float]:
    """The four scores of a validation pass."""
    logits = outputs.predictions[0] if isinstance(outputs.predictions, tuple) else outputs.predictions
    predictions = np.argmax(require_finite(logits), axis=-1)
    found = EmotionMetrics().compute(predictions=predictions, references=outputs.label_ids, num_labels=num_labels)
    return {name: found[name] for name in SCORES}


def training_arguments(
    folder: Path, options: Mapping[str, Any], epochs: float, metric: str, seed: int
) -> TrainingArguments:
    """Ours, then the recipe's. Half precision is dropped where there is no GPU, with a notice, unless use_cpu asks."""
    options = {**DEFAULTS, **options}
    halves = [name for name in ("bf16", "fp16") if options.get(name)]
    if halves and not torch.cuda.is_available() and not options.get("use_cpu"):
        print(f"notice: no GPU here, training in float32 instead of {halves[0]}")
        options |= dict.fromkeys(halves, False)
    options["report_to"] = options["report_to"] or "none"
    if "tensorboard" in options["report_to"]:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.parent / "tensorboard" / folder.name)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        metric_for_best_model=metric,
        greater_is_better=True,
        seed=seed,
        **options,
    )


def train_stage(
    recipe: Recipe,
    stage: StageRecipe,
    seed: int,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    train: EmotionDataset,
    validation: EmotionDataset,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> MerhanForSequenceClassification:
    """Train one stage from where it stands, and keep its best epoch in `folder/model`.

    A finished stage is loaded, an interrupted one goes on from its last whole checkpoint, bit by bit as if nothing had
    happened (on CPU).
    """
    if (folder / "model").is_dir():
        print(f"stage {stage.name}: finished before, loading {folder / 'model'}")
        return load_trained(folder / "model", model.config._attn_implementation)
    counts = freeze(model, stage.learning_rate, stage.freeze_feature_encoder)
    print(
        f"stage {stage.name}: training " + ", ".join(f"{name} ({count:,} parameters)" for name, count in counts.items())
    )
    options = training_arguments(folder, {**recipe.trainer, **stage.trainer}, stage.epochs, recipe.metric, seed)
    for dataset in (train, validation):
        dataset.features.clear()
        for modality in frozen_modalities(model) if stage.cache_features else ():
            if modality not in dataset.changing:
                use_cached_features(model.merhan, dataset, modality, options.device)
    patience = stage.early_stopping_patience
    trainer = MerhanTrainer(
        model,
        options,
        learning_rates=stage.learning_rate,
        num_labels=model.config.num_labels,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=Collator(processor),
        # Without words its tokenizer is a stand-in, whose special tokens have no business in the model's config.
        processing_class=processor if "text" in processor.modalities else None,
        callbacks=[*callbacks, *([EarlyStoppingCallback(patience)] if patience is not None else [])],
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(Progress if not options.disable_tqdm else PrinterCallback)
    set_seed(seed)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return _keep(trainer, folder)


def _keep(trainer: MerhanTrainer, folder: Path) -> MerhanForSequenceClassification:
    """Save the stage's result whole or not at all: the folder's presence says that the stage is over."""
    record(trainer)
    trainer.save_model(str(folder / "model.part"))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        (folder / "model.part").rename(folder / "model")
    trainer.accelerator.wait_for_everyone()
    # Read back, as a resumed run does: what trained may be sharded over processes, or wrapped.
    attention = trainer.model.config._attn_implementation
    return load_trained(folder / "model", attention)


def load_trained(folder: Path, attention: str) -> MerhanForSequenceClassification:
    """A finished stage's model, with the attention implementation of the run."""
    return MerhanForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; what a killed process left half written is removed.

    `trainer_state.json` is the last file that Trainer writes into a checkpoint.
    """
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    for step in sorted(steps, reverse=True):
        if _is_whole(steps[step]):
            return str(steps[step])
        shutil.rmtree(steps[step])
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False
