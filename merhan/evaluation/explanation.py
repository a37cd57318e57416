"""Explanation of single predictions as HTML pages: scores, modality contributions and attention."""

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from merhan.data.audio_facts import segment_bounds
from merhan.data.dataset import dialogue_context
from merhan.data.loading import Data, keep_readable
from merhan.errors import InputError, did_you_mean
from merhan.evaluation.run_description import describe_model, format_date, model_source
from merhan.files import file_name, write_text
from merhan.logs import progress
from merhan.reporting.matplotlib_plots import plot_explanation
from merhan.reporting.pages import audio_data_url, figure_data_url, render
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, EmotionRecognitionPipeline, MerhanProcessor


def explain_rows(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, data: Data, names: Sequence[str], folder: Path
) -> list[Path]:
    """Write a page for each utterance, `folder/<utterance_id>.html`, and return the paths.

    Args:
        data: the loaded data; the dialogue context of a turn is taken from all of it.
        names: utterance ids.
        folder: the folder to write.

    Raises:
        InputError: there is no such utterance, or it has neither audio nor text that the model reads.
    """
    rows = data.rows.set_index("utterance_id", drop=False)
    for name in names:
        if name not in rows.index:
            raise InputError(
                f"--utterance {name}: the data has no such utterance{did_you_mean(name, list(rows.index))}"
            )
    modalities = processor.modalities
    readable, left_out = keep_readable(rows.loc[list(names)], modalities, modalities, "the utterances")
    if left_out:
        raise InputError(f"--utterance: {left_out[0]}")
    contexts = dialogue_context(data.dialogues, processor.context_turns)
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for row in progress(readable.to_dict("records"), desc="explaining", leave=False):
        pages.append(folder / f"{file_name(row['utterance_id'])}.html")
        write_text(pages[-1], _explain_row(model, processor, row, contexts.get(row["utterance_id"])))
    return pages


def _explain_row(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, row: Mapping[Any, Any], context: Any
) -> str:
    waveform = text = None
    if "audio" in processor.modalities and row["audio"]:
        waveform = processor.load_audio(row["audio"], *segment_bounds(row.get("start"), row.get("end")))
    if "text" in processor.modalities:
        text = row["text"]
    return explain(model, processor, waveform, text, row.get("speaker"), context, row["utterance_id"], row["label"])


def explain_file(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    audio: str | None,
    text: str | None,
    speaker: str | None,
    folder: Path,
) -> Path:
    """Write `folder/explanation.html` for a recording, its text, or both; returns the path of the page.

    Raises:
        InputError: the recording or the text cannot be read, or the model does not read them.
    """
    waveform = None
    try:
        if audio:
            waveform = processor.load_audio(audio)
        page = explain(model, processor, waveform, text, speaker)
    except ValueError as error:
        raise InputError(str(error)) from None
    write_text(folder / "explanation.html", page)
    return folder / "explanation.html"


def explain(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    waveform: np.ndarray | None = None,
    text: str | None = None,
    speaker: str | None = None,
    context: Any = None,
    title: str = "Utterance",
    label: str | None = None,
) -> str:
    """The page of one utterance: scores, modality contributions by occlusion, and attention of words over time.

    Args:
        waveform: `(samples,)` at 16 kHz, as [`MerhanProcessor.load_audio`] returns it, or None.
        text, speaker, context: as the processor takes them.
        title: heading of the page.
        label: the annotated emotion, if it is known.
    """
    unbounded = copy(processor)
    unbounded.max_seconds = unbounded.trim_silence = None  # the waveform has been trimmed and cropped already
    recogniser = EmotionRecognitionPipeline(model=model, processor=unbounded)
    text = text or None
    inputs = {"audio": None, "text": text, "speaker": speaker, "context": context}
    if waveform is not None:
        inputs["audio"] = {"array": waveform, "sampling_rate": SAMPLING_RATE}
    explanation: Any = recogniser(inputs, explain=True)
    audio_url = drawing = None
    if waveform is not None:
        audio_url = audio_data_url(waveform)
        drawing = figure_data_url(lambda figure: plot_explanation(figure, waveform, explanation))
    return render(
        "explanation.html.jinja",
        title=title,
        header=_header(model, explanation, label, inputs),
        text=text,
        explanation=explanation,
        peaks=attention_peaks(explanation),
        audio=audio_url,
        drawing=drawing,
    )


def _header(
    model: MerhanForSequenceClassification,
    explanation: Mapping[str, Any],
    label: str | None,
    inputs: Mapping[str, Any],
) -> dict[str, str]:
    """The header of the page, as title -> value; values that are unknown are empty."""
    source = model_source(model, Path())
    description = describe_model(model, source.provenance)
    best = explanation["scores"][0]
    modalities = [name for name in ("audio", "text") if inputs[name] is not None]
    return {
        "Prediction": f"{best['label']} ({best['score']:.3f})",
        "Label": label or "",
        "Input": " and ".join(modalities),
        "Speaker": inputs["speaker"] or "",
        "Model": source.name,
        "Audio backbone": description["audio_backbone"] or "",
        "Text backbone": description["text_backbone"] or "",
        "Fusion": description["fusion"],
        "Date": format_date(datetime.now(UTC).isoformat()),
    }


def attention_peaks(explanation: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Each word and the time in seconds at which its attention is highest; empty without cross attention."""
    seconds = explanation["seconds"]
    return [(word["word"], seconds[int(np.argmax(word["attention"]))]) for word in explanation["words"]]


def require_raw_inputs(model: MerhanForSequenceClassification, processor: MerhanProcessor):
    """Check that a model reads audio and text themselves.

    Raises:
        InputError: the model reads precomputed features, which cannot be shown.
    """
    features = sorted(set(model.config.modalities) - set(processor.modalities))
    if features:
        raise InputError(
            f"explain: this model reads features in place of {' and '.join(features)}, which cannot be shown."
        )
