"""Loading trained models, and computing logits for the rows of a data set."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments

from merhan.content_hashes import require_intact
from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.hub_ids import checkpoint_source, pinned
from merhan.logs import progress_is_visible
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


DIVERGED = "Lower the learning rate (stages[].learning_rate), or use bf16 in place of fp16."
HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}  # field of TrainingArguments -> precision of autocast


def load_checkpoint(name: str | Path) -> tuple[MerhanForSequenceClassification, MerhanProcessor]:
    """Load model (in eval mode, float32) and processor.

    The classes of this package are used, never code of the checkpoint.

    Args:
        name: a run's folder, a model folder, or a Hub id, which may pin a revision (`me/model@v1.0`).

    Raises:
        InputError: there is no such model, a file of it is damaged, or its config is not valid for this version.
    """
    source = _model_source(name)
    require_intact(source, "restore it, or delete hashes.json there if the change is meant")
    try:
        checkpoint = checkpoint_source(source)
        model = MerhanForSequenceClassification.from_pretrained(**checkpoint, dtype=torch.float32)
        model.name_or_path = pinned(source)  # so that results say which commit they belong to
        # With `config`, loading the tokenizer does not ask whether to run the code of the checkpoint.
        processor = MerhanProcessor.from_pretrained(**checkpoint, config=model.config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint: {str(name)!r} is neither a run's folder, nor a model folder, nor a model on the Hub "
            f"({str(error).strip().splitlines()[0]})"
        ) from None
    except StrictDataclassError as error:
        message = " ".join(str(error).split())
        raise InputError(
            f"checkpoint: {source}/config.json is not valid for this version ({message}); fix that key, or train again."
        ) from None
    return model.eval(), cast(MerhanProcessor, processor)


def load_stage_model(folder: Path, attention: str) -> MerhanForSequenceClassification:
    """The model of a finished stage in float32, with the attention implementation of the run.

    Raises:
        InputError: a file of it is damaged.
    """
    require_intact(folder, f"delete the folder {folder}, and train that stage again with --resume")
    model = MerhanForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    # Set afterwards, because from_pretrained requires it of every backbone, and WavLM only has an attention of its own.
    model.set_attn_implementation(attention)
    return model


def machine_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """TrainingArguments that suit this machine, where a recipe's `trainer` does not set them; none without a GPU.

    On a GPU: bf16 where it computes in it, tf32 for what stays in float32, and a loader worker for each core and
    process, at most eight.
    """
    if not torch.cuda.is_available() or options.get("use_cpu"):
        return {}
    cores = (os.cpu_count() or 1) // PartialState().num_processes
    defaults: dict[str, Any] = {"dataloader_num_workers": min(cores, 8)}
    if torch.cuda.is_bf16_supported(including_emulation=False):
        defaults |= {"bf16": not options.get("fp16"), "tf32": True}
    return {name: value for name, value in defaults.items() if name not in options}


def without_cudnn_attention():
    """Switch off cuDNN's implementation of attention, which builds a plan for every shape that is new: it takes most of
    a second per batch of a new length, and gains less than a tenth afterwards (RESULTS.md, "On a GPU")."""
    torch.backends.cuda.enable_cudnn_sdp(False)


class Speed(NamedTuple):
    """How logits are computed."""

    precision: torch.dtype | None = None  # of autocast; None = float32
    workers: int = 0  # processes that load audio


_PLAIN = Speed()
_SPEED: ContextVar[Speed] = ContextVar("speed", default=_PLAIN)


@contextmanager
def as_in_training(trainer: Mapping[str, Any]) -> Iterator[Speed]:
    """Within it, logits are computed in the precision and with the loader workers of a recipe's `trainer`.

    Half precision only on a GPU, as in training.
    """
    without_cudnn_attention()
    trainer = {**machine_defaults(trainer), **trainer}
    precision = None
    if PartialState().device.type == "cuda":
        precision = next((dtype for name, dtype in HALF_PRECISION.items() if trainer.get(name)), None)
    speed = Speed(precision, trainer.get("dataloader_num_workers") or 0)
    token = _SPEED.set(speed)
    try:
        yield speed
    finally:
        _SPEED.reset(token)


def predict_logits(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    dataset: EmotionDataset,
    batch_size: int,
    quiet: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(rows, num_labels)` and dimensions `(rows, config.dimensions)` float32, in the order of the data set.

    Rows of similar length share a batch, the longest first. See [`as_in_training`] for precision and loader workers.

    Args:
        batch_size: rows per batch and process.
        quiet: hide the progress bar.

    Raises:
        InputError: a logit is NaN or infinite.
    """
    order = longest_first(dataset)
    # The last batch is filled up, so that it has the shape of others (and accelerate repeats no rows).
    together = batch_size * PartialState().num_processes
    missing = -len(order) % together if len(order) > together else 0
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        use_cpu=PartialState().device.type == "cpu",  # as in training; another device would reset accelerate's state
        per_device_eval_batch_size=batch_size,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=quiet or not progress_is_visible(),
        dataloader_pin_memory=torch.cuda.is_available(),
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        dataloader_num_workers=_SPEED.get().workers,
    )
    trainer = Trainer(model, arguments, data_collator=Collator(processor))
    trainer.is_fsdp_enabled = False  # every process has the whole model, which accelerate shards with an optimizer only
    rows = Subset(dataset, [*order.tolist(), *order[-missing:].tolist()] if missing else order.tolist())
    precision = _SPEED.get().precision
    # Not by TrainingArguments, which would change the model's forward for good.
    with torch.autocast(arguments.device.type, precision, enabled=precision is not None):
        predictions: Any = trainer.predict(rows).predictions
    if isinstance(predictions, tuple):
        predictions = np.concatenate(predictions, axis=1)
    outputs = np.empty((len(order), predictions.shape[1]), dtype=np.float32)
    outputs[order] = predictions[: len(order)]
    logits, dimensions = np.split(require_finite_logits(outputs), [len(label_ids(model))], axis=1)
    return logits, dimensions


def longest_first(dataset: EmotionDataset) -> np.ndarray:
    """The rows of a data set `(rows,)` in the order in which they are evaluated: those that are padded alike side by
    side, and the longest first, so that running out of memory shows at once."""
    return np.argsort(-dataset.cells, kind="stable")


def label_ids(model: MerhanForSequenceClassification) -> dict[str, int]:
    """Label -> class id, in the order of the ids. (A saved config has its labels in alphabetical order.)"""
    ids = cast(dict[str, int], model.config.label2id)
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def require_finite_logits(logits: np.ndarray) -> np.ndarray:
    """Return the logits `(rows, num_labels)`; NaN would silently count as the first class.

    Raises:
        InputError: NaN or infinity among them.
    """
    invalid = int((~np.isfinite(logits)).any(axis=-1).sum())
    if invalid:
        raise InputError(
            f"The model's logits of {invalid} of {len(logits)} rows are not finite: training diverged. {DIVERGED}"
        )
    return logits


def weights_digest(model: torch.nn.Module) -> "hashlib.blake2b":
    """Hash of every tensor that the model would save, with its name and type; more may be added to it."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + str(tensor.dtype).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest


def _model_source(name: str | Path) -> str:
    """The model folder of a run, or the name as it is."""
    model = Path(name) / "model"
    return str(model if model.is_dir() else name)
