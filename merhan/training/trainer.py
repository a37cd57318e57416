"""The Hugging Face Trainer with a sampler of our own, one learning rate per parameter group, and weight averaging."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import EvalPrediction, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import nested_gather
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from merhan.content_hashes import FILE as HASHES
from merhan.content_hashes import require_intact, write_hashes
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.logs import get_logger
from merhan.metrics.classification import EmotionMetrics
from merhan.models.inference import DIVERGED, require_finite_logits
from merhan.names import SCORE_TITLES, SCORES
from merhan.training.ema import AveragingCallback, averaged_weights, load_average, save_average, weight_average
from merhan.training.interruption import Interruption
from merhan.training.parameter_groups import backbone_layers, parameter_groups
from merhan.training.sampling import LengthBucketSampler, SecondsBatchSampler
from modeling_merhan import MerhanBlock, MerhanForSequenceClassification, MerhanFusion, MerhanModel, emotion_loss
from processing_merhan import SAMPLING_RATE


logger = get_logger(__name__)

_LOSS = "loss_since_last_log"  # where trainer_state.json has it, among the states of callbacks

# Targets -> the value by which the loss leaves out a row.
NO_TARGET = {"labels": -100, "dimension_targets": math.nan}


class MerhanTrainer(Trainer):
    """Trainer of one stage. Each stage needs a new one: an optimizer only knows the parameters that were trainable when
    it was made.

    Args:
        learning_rates: parameter group -> peak learning rate.
        num_labels: number of classes.
        layer_decay: modality -> factor on the learning rate from each layer to the one below.
        sampler: makes the sampler from grid cells, batch size, seed and whether rows are sorted by length.
        batch_seconds: seconds of padded sound in a batch, in place of a number of rows; None = as many rows in each.
        ema_decay: decay of the moving average of the weights; None = no average.
        args, kwargs: as of `transformers.Trainer`.
    """

    model: MerhanForSequenceClassification
    train_dataset: EmotionDataset

    def __init__(
        self,
        *args,
        learning_rates: Mapping[str, float],
        num_labels: int,
        layer_decay: Mapping[str, float] | None = None,
        sampler: Callable[..., LengthBucketSampler] = LengthBucketSampler,
        batch_seconds: float | None = None,
        ema_decay: float | None = None,
        **kwargs,
    ):
        self.learning_rates = learning_rates
        self.layer_decay = layer_decay
        self.sampler = sampler
        self.batch_seconds = batch_seconds
        super().__init__(*args, **{"compute_metrics": partial(compute_metrics, num_labels=num_labels), **kwargs})
        self.average: AveragedModel | None = None
        self.interruption = Interruption()
        self._checked_step = -1
        self._resumed_loss: dict[str, float] = {}
        if self.is_fsdp_enabled:
            shard_by_layer(self.model, self.accelerator.state.fsdp_plugin)
        if ema_decay is not None:
            if self.is_fsdp_enabled:
                raise InputError("ema_decay: is not supported under FSDP, which shards the weights; remove the key.")
            self.average = weight_average(self.model, ema_decay)
            self.add_callback(AveragingCallback(self.average))
        self._replace_progress_callbacks()
        self.add_callback(FiniteLoss)

    def get_train_dataloader(self) -> DataLoader:
        """As Trainer's, or with batches of constant seconds."""
        if self.batch_seconds is None:
            return super().get_train_dataloader()
        data, arguments = self.train_dataset, self.args
        limit = self.batch_seconds * SAMPLING_RATE
        multiple = arguments.gradient_accumulation_steps * arguments.world_size
        batches = SecondsBatchSampler(data.cells, data.shapes[:, 0], limit, multiple, arguments.seed)
        loader = DataLoader(
            data,
            batch_sampler=_EpochSampler(data, batches),
            collate_fn=self.data_collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
            persistent_workers=arguments.dataloader_persistent_workers,
            prefetch_factor=arguments.dataloader_prefetch_factor,
            multiprocessing_context=arguments.dataloader_multiprocessing_context,
        )
        return self.accelerator.prepare(loader)

    def _get_train_sampler(self, train_dataset=None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        # Rows per optimizer step, so that the order depends neither on processes nor on accumulation steps.
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        by_length = self.args.train_sampling_strategy != "random"
        return _EpochSampler(dataset, self.sampler(dataset.cells, batch_size, self.args.seed, by_length))

    def _get_eval_sampler(self, eval_dataset) -> Sampler[int]:
        # Trainer's own would group rows by length here too, and predictions would not be in the order of the data.
        return SequentialSampler(eval_dataset)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """The optimizer of the recipe's name, over our parameter groups."""
        model = self.model if model is None else model
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, self.learning_rates, decayed, self.args.weight_decay, self.layer_decay)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The model's loss, so that every row of an optimizer step weighs the same, times its `row_weights` if any."""
        weights, share = inputs.pop("row_weights", None), inputs.pop("share", None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if weights is not None:
            # Added to the model's loss and not computed anew, because that may hold further terms.
            loss = loss + emotion_loss(outputs.logits, inputs["labels"], self.model.config, weights - 1)
        if share is not None:
            loss = loss * share
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, *args, **kwargs) -> torch.Tensor:
        """As Trainer's; running out of memory names the batch and the remedy."""
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        except torch.OutOfMemoryError:
            if self.args.auto_find_batch_size:
                raise
            remedy = "sampling.batch_seconds to less"
            if self.batch_seconds is None:
                size = f"trainer.per_device_train_batch_size below {self._train_batch_size}"
                remedy = f"{size} and gradient_accumulation_steps higher by as much"
            raise InputError(_out_of_memory(inputs, remedy)) from None

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of an optimizer step. Trainer averages their losses, and those of the processes, so that a batch
        of fewer rows must count less."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = [len(batch["labels"]) for batch in batches]
        mean: Any = sum(rows) / max(len(rows), 1)
        if self.batch_seconds is not None:
            # Filled on the device, because a copy would wait for it.
            mean = self.accelerator.reduce(torch.full((), mean, device=device), "mean")
        for number, batch in enumerate(batches):
            if self.batch_seconds is None:
                batch = fill_rows(batch, self._train_batch_size)
            if self.batch_seconds is not None or rows[number] != mean:
                batch["share"] = rows[number] / mean
            batches[number] = batch
        return batches, num_items

    def get_decay_parameter_names(self, model) -> list[str]:
        """As transformers: no biases and norms; and no learned tokens and mixing weights, whose zero means nothing."""
        raw = set()
        for prefix, module in model.named_modules():
            if isinstance(module, MerhanFusion | MerhanModel):
                names = [name for name, _ in module.named_parameters(recurse=False)]
                raw |= {f"{prefix}.{name}" if prefix else name for name in names}
        return [name for name in super().get_decay_parameter_names(model) if name not in raw]

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Validation metrics, of the averaged weights if there are any."""
        with averaged_weights(self.model, self.average):
            return super().evaluate(*args, **kwargs)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Zero: transformers counts the tokens of one input, and a batch here has two, or features."""
        return 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """Save the model, and in a checkpoint also the average, which the end of the training may read."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.average is not None and self.args.should_save:
            save_average(self.average, str(output_dir or self.args.output_dir))

    def is_interrupted(self) -> bool:
        """Whether a signal asked any process to end; all processes must ask at the same time."""
        if self.args.world_size == 1:
            return self.interruption.number is not None
        if self.interruption.number is not None:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def end_if_interrupted(self, where: str):
        """Raise Interrupted if a signal asked for it.

        Args:
            where: what has been saved.
        """
        if self.is_interrupted():
            raise self.interruption.error(where)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        """As Trainer's, after each step and each epoch; then the end, if a signal asked for it.

        The last step of an epoch waits for the end of the epoch, which is evaluated, and so does that of the training.
        """
        super()._maybe_log_save_evaluate(*args, **kwargs)
        step, is_step = self.state.global_step, self.state.global_step != self._checked_step
        self._checked_step = step
        ends_epoch = float(self.state.epoch or 0).is_integer()
        if not self.is_interrupted() or self.control.should_training_stop or (is_step and ends_epoch):
            return
        checkpoint = Path(self._get_output_dir(None)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        if not (checkpoint / HASHES).is_file():
            self._save_checkpoint(self.model, None)
        self.accelerator.wait_for_everyone()
        raise self.interruption.error(str(checkpoint))

    def _load_callback_state(self):
        states: Any = self.state.stateful_callbacks
        self._resumed_loss = states.pop(_LOSS, {})
        super()._load_callback_state()

    def _run_epoch(self, *args, **kwargs):
        """As Trainer's, which forgets the losses since the last log where it resumes."""
        if self._resumed_loss:
            self._tr_loss += self._resumed_loss["sum"]
            self._globalstep_last_logged = int(self._resumed_loss["last_logged"])
            self._resumed_loss = {}
        return super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        """As Trainer's, with the losses since the last log; then the hashes of its files, by which a resumed run
        notices damage."""
        loss = nested_gather(self._tr_loss, self.args.parallel_mode).mean().item()
        states: Any = self.state.stateful_callbacks
        states[_LOSS] = {"sum": loss, "last_logged": self._globalstep_last_logged}
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            write_hashes(Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")

    def _load_best_model(self):
        require_intact(
            str(self.state.best_model_checkpoint), "resume the run with --resume, from the checkpoint before it"
        )
        super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average is not None and checkpoint is not None:
            load_average(self.average, checkpoint)

    def _replace_progress_callbacks(self):
        """One line per epoch in place of the many that Trainer prints; all values go to the reporter."""
        for callback in (ProgressCallback, PrinterCallback):
            self.remove_callback(callback)
        if not self.args.disable_tqdm:
            self.add_callback(_SilentProgress)
        self.add_callback(EpochLog)


def shard_by_layer(model: torch.nn.Module, plugin: Any):
    """Let FSDP shard the layers of the backbones and of the fusion one by one, where its config names no classes.

    By default accelerate would take the model's `_no_split_modules`, which lack wav2vec2's layers and hold RoBERTa's
    embeddings, of which it then shards a part once more and fails.

    Args:
        plugin: accelerate's FullyShardedDataParallelPlugin.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        layers = [*backbone_layers(model), *(module for module in model.modules() if isinstance(module, MerhanBlock))]
        plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})


class EpochLog(TrainerCallback):
    """Logs one line per epoch: training loss and validation scores."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "eval_loss" not in logs:
            return
        scores = [f"{SCORE_TITLES[name]} {logs[f'eval_{name}']:.3f}" for name in SCORES]
        loss = "".join(f"loss {value:.3f}  " for value in _new_losses(state.log_history)[-1:])
        logger.info(f"epoch {logs['epoch']:g}  {loss}validation {'  '.join(scores)}")


class FiniteLoss(TrainerCallback):
    """Ends a training whose loss is NaN or infinite, at the next log and before a checkpoint is saved."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not math.isfinite(logs.get("loss", 0.0)):
            raise InputError(
                f"The loss of the training is {logs['loss']} in the steps before step {state.global_step}: it "
                f"diverged. {DIVERGED}"
            )


def _new_losses(history: Sequence[Mapping[str, float]]) -> list[float]:
    """The training losses logged between the last two evaluations; none where an epoch has few steps."""
    evaluations = [place for place, entry in enumerate(history) if "eval_loss" in entry]
    start = evaluations[-2] if len(evaluations) > 1 else 0
    return [entry["loss"] for entry in history[start:] if "loss" in entry]


class _SilentProgress(ProgressCallback):
    """The progress bar over the steps, without the logged values."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Log nothing."""


class _EpochSampler(Sampler):
    """Passes the number of the epoch to the data set as well, for its random draws."""

    def __init__(self, dataset: EmotionDataset, order: LengthBucketSampler | SecondsBatchSampler):
        self.dataset = dataset
        self.order = order

    @property
    def sampler(self) -> "_EpochSampler":
        """Where accelerate's data loader looks for `set_epoch` of a sampler of batches."""
        return self

    def set_epoch(self, epoch: int):
        self.order.set_epoch(epoch)
        self.dataset.epoch = epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.order)


def _out_of_memory(batch: Mapping[str, Any], remedy: str) -> str:
    """What the batch was, and what needs less memory. The longest batch of an epoch comes first."""
    values = {name: tensor for name, tensor in batch.items() if torch.is_tensor(tensor) and not name.endswith("mask")}
    shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in values.items()]
    return (
        f"The GPU ran out of memory on the longest batch ({', '.join(shapes)}): set {remedy}, or "
        f"trainer.activation_checkpointing: true, or a smaller data.max_seconds."
    )


def fill_rows(batch: Mapping[str, torch.Tensor], size: int) -> dict[str, Any]:
    """Repeat the first row of a batch, without label, up to `size` rows: the last batch of an epoch then has the shape
    of others, and the same loss. Batches whose loss counts every row are returned as they are."""
    rows = len(batch["labels"])
    if rows >= size or batch["labels"].is_floating_point() or "adversary_labels" in batch:
        return dict(batch)
    filled = {}
    for name, values in batch.items():
        more = values[:1].expand(size - rows, *values.shape[1:])
        if name in NO_TARGET:
            more = torch.full_like(more, NO_TARGET[name])
        filled[name] = torch.cat([values, more])
    return filled


def compute_metrics(outputs: EvalPrediction, num_labels: int) -> dict[str, float]:
    """The four scores of a validation pass.

    Args:
        outputs: predictions are logits `(rows, num_labels)`, or a tuple that begins with them.

    Raises:
        InputError: a logit is NaN or infinite.
    """
    predictions = outputs.predictions
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    classes = np.argmax(require_finite_logits(logits), axis=-1)
    scores = EmotionMetrics().compute(predictions=classes, references=outputs.label_ids, num_labels=num_labels)
    return {name: scores[name] for name in SCORES}
