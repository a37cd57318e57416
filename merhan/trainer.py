"""The Hugging Face Trainer with our batches, rates and checkpoints."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from merhan.adapters import add_adapters, merge_adapters
from merhan.adversary import BETA, add_adversary, remove_adversary
from merhan.augmentation import AugmentationRecipe
from merhan.averaging import Averaging, averaged, load_average, save_average, weight_average
from merhan.curriculum import difficulty_of, doubt, kept, row_weights
from merhan.dataset import Collator, EmotionDataset
from merhan.errors import require_finite
from merhan.evaluation import estimate
from merhan.feature_cache import use_cached_features
from merhan.history import begin, record
from merhan.metrics import SCORES, EmotionMetrics
from merhan.recipe import Recipe, StageRecipe
from merhan.report import TITLES
from merhan.sampling import LengthBucketSampler, sampler_of
from merhan.stages import Thawing, count_trainable, freeze, frozen_modalities, parameter_groups
from modeling_merhan import MerhanForSequenceClassification, emotion_loss
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

    def __init__(
        self,
        *args,
        learning_rates: Mapping[str, float],
        num_labels: int,
        layer_decay: Mapping[str, float] | None = None,
        sampler: Callable[..., LengthBucketSampler] = LengthBucketSampler,
        ema_decay: float | None = None,
        **kwargs,
    ):
        self.learning_rates = learning_rates
        self.layer_decay = layer_decay
        self.sampler = sampler
        super().__init__(*args, compute_metrics=lambda outputs: compute_metrics(outputs, num_labels), **kwargs)
        self.average = None if ema_decay is None else weight_average(self.model, ema_decay)
        if self.average is not None:
            self.add_callback(Averaging(self.average))

    def _get_train_sampler(self, train_dataset=None) -> torch.utils.data.Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        order = self.sampler(
            dataset.lengths,
            self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            self.args.seed,
            1 if self.args.train_sampling_strategy == "random" else 50,
        )
        return _EpochSampler(dataset, order)

    def _get_eval_sampler(self, eval_dataset) -> torch.utils.data.Sampler:
        return SequentialSampler(eval_dataset)  # Trainer's own would group rows by length here too

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        model = self.model if model is None else model
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.learning_rates, decayed, self.args.weight_decay, self.layer_decay)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs: bool = False, **kwargs):
        """The model's own, with each row's loss times its `row_weights`, where the batch has them."""
        weights = inputs.pop("row_weights", None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if weights is not None:
            # Added rather than computed anew: whatever else is in the model's loss stays there.
            loss = loss + emotion_loss(outputs.logits, inputs["labels"], self.model.config, weights - 1)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        with averaged(self.model, self.average):
            return super().evaluate(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and self.args.should_save:
            save_average(self.average, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average is not None and checkpoint is not None:
            load_average(self.average, checkpoint)

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


class _EpochSampler(Sampler[int]):
    """Tells the data set too which epoch it is, for its draws of augmentation."""

    def __init__(self, dataset: EmotionDataset, order: LengthBucketSampler):
        self.dataset = dataset
        self.order = order

    def set_epoch(self, epoch: int):
        self.order.set_epoch(epoch)
        self.dataset.epoch = epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)


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
    begin()
    set_seed(seed)  # adapters and adversary begin at random, in a resumed run at the same weights
    freeze(model, stage.learning_rate, stage.freeze_feature_encoder)
    adapters = add_adapters(model, recipe.model.adapters, stage.learning_rate)
    train.extras.clear()
    learning_rates = dict(stage.learning_rate)
    if recipe.adversary is not None:
        learning_rates["adversary"] = recipe.adversary.learning_rate
        train.extras["adversary_labels"] = add_adversary(model, recipe.adversary, train.rows)
    counts = count_trainable(model)
    print(
        f"stage {stage.name}: training " + ", ".join(f"{name} ({count:,} parameters)" for name, count in counts.items())
    )
    options = {"adam_beta1": BETA} if recipe.adversary is not None else {}
    options = training_arguments(
        folder, {**options, **recipe.trainer, **stage.trainer}, stage.epochs, recipe.metric, seed
    )
    _use_features(model, frozen_modalities(model) if stage.cache_features else [], (train, validation), options.device)
    difficulty = _difficulty(recipe, model, processor, train, options, folder)
    if recipe.difficulty_weight is not None:
        train.extras["row_weights"] = torch.from_numpy(row_weights(difficulty, recipe.difficulty_weight)).float()
    callbacks = [*callbacks]
    if stage.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(stage.early_stopping_patience))
    if stage.unfreeze_layers:
        options.ddp_find_unused_parameters = True  # DDP would wait for gradients of what is still frozen
        callbacks.append(Thawing(model, stage.unfreeze_layers))
    trainer = MerhanTrainer(
        model,
        options,
        learning_rates=learning_rates,
        num_labels=model.config.num_labels,
        layer_decay=stage.layer_decay,
        sampler=sampler_of(recipe.sampling, train.rows, difficulty),
        ema_decay=recipe.ema_decay,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=Collator(processor),
        # Without words its tokenizer is a stand-in, whose special tokens have no business in the model's config.
        processing_class=processor if "text" in processor.modalities else None,
        callbacks=callbacks,
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(Progress if not options.disable_tqdm else PrinterCallback)
    set_seed(seed)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    merge_adapters(adapters)
    if recipe.adversary is not None:
        remove_adversary(model)
    return _keep(trainer, folder)


def _use_features(
    model: MerhanForSequenceClassification,
    modalities: Sequence[str],
    datasets: Sequence[EmotionDataset],
    device: torch.device,
):
    for dataset in datasets:
        dataset.features.clear()
        for modality in modalities:
            if modality not in dataset.changing:
                use_cached_features(model.merhan, dataset, modality, device)


def _difficulty(
    recipe: Recipe,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    train: EmotionDataset,
    options: TrainingArguments,
    folder: Path,
) -> np.ndarray | None:
    """`(rows,)` by the recipe's curriculum, computed at the stage's start and kept in its folder."""
    curriculum = recipe.sampling.curriculum
    if curriculum is None:
        return None
    plain = copy(train)
    plain.augmentation, plain.transcript_noise, plain.extras = AugmentationRecipe(), None, {}

    def doubts() -> np.ndarray:
        # A copy: asked itself, the model would have other gradients in two processes than in one.
        logits, _ = estimate(deepcopy(model), processor, plain, options.per_device_eval_batch_size)
        return doubt(logits, np.array(plain.labels))

    compute = partial(difficulty_of, curriculum, train.rows, doubts)
    return kept(folder / "difficulty.npy", compute, writes=PartialState().is_main_process)


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
    model = MerhanForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    # Not by from_pretrained, which insists on it for every backbone, and WavLM has an attention of its own alone.
    model.set_attn_implementation(attention)
    return model


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
