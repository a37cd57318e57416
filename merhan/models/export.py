"""A trained model as one ONNX graph, in a folder with all that it needs to run without PyTorch."""

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from merhan.content_hashes import write_hashes
from merhan.errors import InputError
from merhan.files import atomic_path, remove_leftovers, resource, write_json
from merhan.logs import get_logger
from merhan.models.inference import label_ids, load_checkpoint
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


logger = get_logger(__name__)

PRECISIONS = ("fp32", "fp16", "int8")
TOLERANCE = 1e-4  # between the logits of PyTorch and those of the graph, in fp32
_INPUTS = {"audio": ("input_values", "audio_attention_mask"), "text": ("input_ids", "attention_mask")}
_EXTERNAL_BYTES = 2**30  # weights beyond it lie in a file of their own; protobuf holds 2 GiB
# Seconds of sound and number of words of each row; 0 = the row lacks it. The first batch is traced.
_TRACED = ((1.0, 6), (0.7, 0), (0.0, 3))
_CHECKED = (_TRACED, ((2.3, 20),), ((0.5, 1), (1.5, 9), (0.9, 0), (0.0, 4)), ((0.6, 0),), ((0.0, 2), (0.0, 7)))

_NO_LIMIT = 2**31

Tensors = dict[str, torch.Tensor]


def export(checkpoint: str | Path, out: str | Path | None = None, precision: str = "fp32") -> Path:
    """Write a model as an ONNX graph of any batch size and lengths, and compare its logits with those of PyTorch.

    The folder holds `model.onnx` (inputs as of the model; a missing modality is a mask of zeros; output: `logits`, not
    divided by the temperature), `tokenizer.json`, `settings.json` and `run_onnx.py`, which needs onnxruntime,
    tokenizers and numpy, and `hashes.json`.

    Args:
        checkpoint: a run's folder, a model folder, or a Hub id.
        out: the folder, which must not exist; by default the name of the checkpoint with `-onnx` or `-onnx-int8`.
        precision: `fp32`; `fp16`, smaller and less exact; `int8`, also faster: weights of matrix products and of
            embeddings are quantised.

    Returns:
        The folder.

    Raises:
        InputError: the model cannot be exported, or the graph differs from it by more than `TOLERANCE`; the folder
            exists; the precision is unknown.
    """
    import onnxruntime  # noqa: F401  # so that a missing extra is named at once

    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is unknown; choose {', '.join(PRECISIONS)}.")
    folder = Path(out) if out is not None else _default_folder(checkpoint, precision)
    if folder.exists():
        raise InputError(f"{folder}: exists already; delete it, or name another folder with --out.")
    model, processor = load_checkpoint(checkpoint)
    _require_exportable(model, processor, str(checkpoint))
    remove_leftovers(folder.parent)
    with atomic_path(folder) as part:
        part.mkdir(parents=True)
        _write_graph(model, processor, part / "model.onnx", str(checkpoint))
        _convert(part / "model.onnx", precision)
        difference = largest_difference(model, processor, part / "model.onnx")
        _require_close(difference, precision, str(checkpoint))
        processor.tokenizer.backend_tokenizer.save(str(part / "tokenizer.json"))
        _plain_tokenizer(part / "tokenizer.json")
        settings = _settings(model, processor) | {"precision": precision, "largest_difference": difference}
        write_json(part / "settings.json", settings)
        shutil.copy(resource("hub_card/onnx/run_onnx.py"), part)
        write_hashes(part)
    size = sum(path.stat().st_size for path in folder.glob("model.onnx*")) / 2**20
    logger.info(f"onnx: {folder} ({size:.1f} MiB, {precision}; logits differ by at most {difference:.1e})")
    return folder


def _default_folder(checkpoint: str | Path, precision: str) -> Path:
    suffix = "" if precision == "fp32" else f"-{precision}"
    return Path(f"{Path(checkpoint).resolve().name}-onnx{suffix}")


def _require_exportable(model: MerhanForSequenceClassification, processor: MerhanProcessor, name: str):
    """Raise InputError for models whose input the runner could not make."""
    stored = [modality for modality in model.config.modalities if modality not in processor.modalities]
    extractor = type(processor.feature_extractor)
    reason = None
    if stored:
        reason = f"reads stored features of {' and '.join(stored)}, which are made by other programs"
    elif "audio" in processor.modalities and extractor is not Wav2Vec2FeatureExtractor:
        reason = f"reads the spectrogram of {extractor.__name__}, which needs transformers to be computed"
    elif processor.trim_silence is not None:
        reason = "was trained on sound without its silence (data.trim_silence), which the runner does not cut"
    elif "text" in processor.modalities and not processor.tokenizer.is_fast:
        reason = "has a tokenizer that is not in the format of the tokenizers package"
    if reason:
        raise InputError(f"{name}: {reason}; it cannot be exported, use the pipeline or `merhan predict`.")
    if processor.context_turns or processor.use_speaker:
        logger.warning("note: run_onnx.py gives the model the words of the turn alone, without speaker and context")


class _Logits(torch.nn.Module):
    """The logits of a model for its tensors in a fixed order."""

    def __init__(self, model: MerhanForSequenceClassification, names: Sequence[str]):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def _write_graph(model: MerhanForSequenceClassification, processor: MerhanProcessor, path: Path, name: str):
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    batch = _batch(processor, _TRACED)
    any_size = torch.export.Dim.DYNAMIC
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                _Logits(model, list(batch)),
                tuple(batch.values()),
                dynamo=True,
                verbose=False,
                input_names=list(batch),
                output_names=["logits"],
                dynamic_shapes=(tuple({0: any_size, 1: any_size} for _ in batch),),
            )
    except torch.onnx.OnnxExporterError as error:
        kinds = " and ".join(getattr(model.config, f"{name}_config").model_type for name in processor.modalities)
        raise InputError(
            f"{name}: a backbone of it ({kinds}) cannot be exported by this version of torch "
            f"({_brief(error.__cause__ or error)}); train with another one, or use the pipeline."
        ) from error
    ClearMetadataAndDocStringPass()(program.model)  # the traces of each node name files of this machine
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    program.save(path, external_data=weights > _EXTERNAL_BYTES)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, nothing is heard of the exporter's and the quantiser's notes to their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _brief(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200]


def _convert(path: Path, precision: str):
    """Convert a graph in place."""
    if precision == "fp32":
        return
    whole = path.with_name("whole.onnx")
    for part in path.parent.glob("model.onnx*"):
        part.rename(part.with_name(part.name.replace(path.name, whole.name)))
    with _quiet():
        if precision == "int8":
            _quantise(whole, path)
        else:
            _halve(whole, path)
    for part in path.parent.glob("whole.onnx*"):
        part.unlink()


def _quantise(source: Path, target: Path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = source.stat().st_size > _EXTERNAL_BYTES
    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        use_external_data_format=large,
    )


def _halve(source: Path, target: Path):
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(graph, target)


def largest_difference(model: MerhanForSequenceClassification, processor: MerhanProcessor, path: Path) -> float:
    """The largest difference between the logits of PyTorch and of a graph, over batches of other sizes and lengths
    than it was traced with, and over rows without sound and without words; inf if a logit is not finite."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for checked in _CHECKED:
        rows = [row for row in checked if ("audio" in processor.modalities and row[0]) or _has_words(row, processor)]
        if not rows:
            continue
        batch = _batch(processor, rows)
        with torch.no_grad():
            expected = model(**batch).logits.numpy()
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
        difference = float(np.abs(logits - expected).max())
        largest = max(largest, difference if np.isfinite(difference) else np.inf)
    return largest


def _has_words(row: tuple[float, int], processor: MerhanProcessor) -> bool:
    return "text" in processor.modalities and row[1] > 0


def _require_close(difference: float, precision: str, name: str):
    if precision == "fp32" and difference > TOLERANCE:
        raise InputError(
            f"{name}: the logits of its graph differ by {difference:.1e} from those of PyTorch, and may by {TOLERANCE};"
            f" it was not exported, use the pipeline."
        )
    if not np.isfinite(difference):
        raise InputError(f"{name}: its graph computes NaN or infinity in {precision}; export it with --precision fp32.")


def _batch(processor: MerhanProcessor, rows: Sequence[tuple[float, int]]) -> Tensors:
    """Noise and words of these lengths, with all tensors of the model: a missing modality is a mask of zeros."""
    generator = np.random.default_rng(0)
    words = ["I", "cannot", "believe", "it", ",", "and", "the", "dinner", "was", "lovely"]
    sounds: list[np.ndarray | None] = []
    tokens = []
    for seconds, count in rows:
        noise = 0.1 * generator.standard_normal(round(seconds * SAMPLING_RATE)).astype(np.float32)
        sounds.append(noise if seconds else None)
        text = " ".join(words[number % len(words)] for number in range(count))
        tokens.append(processor.encode_text(text) if "text" in processor.modalities else None)
    batch = processor.pad(sounds, tokens, always=processor.modalities)
    return {name: batch[name] for modality in processor.modalities for name in _INPUTS[modality]}


def _plain_tokenizer(path: Path):
    """Remove truncation and padding, which the last call of a tokenizer left in its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, content | {"truncation": None, "padding": None})


def _settings(model: MerhanForSequenceClassification, processor: MerhanProcessor) -> dict[str, Any]:
    """What the runner needs besides graph and tokenizer."""
    combinations = [*processor.modalities]
    if len(combinations) == 2:
        combinations.insert(0, "+".join(processor.modalities))
    shortest, seconds = round(processor.min_seconds * SAMPLING_RATE), processor.max_seconds
    longest = round(seconds * SAMPLING_RATE) if seconds is not None else _NO_LIMIT
    return {
        "labels": list(label_ids(model)),
        "temperature": {name: model.config.temperature.get(name, 1.0) for name in combinations},
        "inputs": [name for modality in processor.modalities for name in _INPUTS[modality]],
        "normalise": bool(processor.feature_extractor.do_normalize),
        "shortest": {"samples": shortest, "tokens": 1},
        "longest": {"samples": longest, "tokens": min(processor.tokenizer.model_max_length, _NO_LIMIT)},
        "padding": {"samples": processor.feature_extractor.padding_value, "tokens": processor.tokenizer.pad_token_id},
    }
