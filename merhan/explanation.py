"""What an answer hangs on, utterance by utterance, as pages to look at and listen to."""

import re
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from merhan.dataset import Data, context_of, readable
from merhan.errors import InputError, nearest
from merhan.inspection import segment
from merhan.pages import picture, render, sound
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, EmotionRecognitionPipeline, MerhanProcessor


def explain_rows(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, data: Data, names: Sequence[str], folder: Path
) -> list[Path]:
    """A page for each of these utterances, `folder/<utterance_id>.html`, its label beside the answer.

    Raises:
        InputError: there is no such utterance, or the model reads nothing of it.
    """
    rows = data.rows.set_index("utterance_id", drop=False)
    for name in names:
        if name not in rows.index:
            raise InputError(f"--utterance {name}: the data has no such utterance{nearest(name, list(rows.index))}")
    chosen, left_out = readable(rows.loc[list(names)], *[processor.modalities] * 2, "the utterances")
    if left_out:
        raise InputError(f"--utterance: {left_out[0]}")
    contexts = context_of(data.dialogues, processor.context_turns)
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for row in tqdm(chosen.to_dict("records"), desc="explaining", leave=False):
        waveform = _sound(row, processor) if "audio" in processor.modalities else None
        utterance = {
            "text": row["text"] if "text" in processor.modalities else None,
            "speaker": row.get("speaker"),
            "context": contexts.get(row["utterance_id"]),
        }
        file_name = re.sub(r"[^\w.-]+", "-", row["utterance_id"])
        pages.append(folder / f"{file_name}.html")
        page = explain(model, processor, waveform, **utterance, title=row["utterance_id"], label=row["label"])
        pages[-1].write_text(page)
    return pages


def explain(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    waveform: np.ndarray | None = None,
    text: str | None = None,
    speaker: str | None = None,
    context: Any = None,
    title: str = "An utterance",
    label: str | None = None,
) -> str:
    """The page of one utterance: scores, what voice and words contributed, and which words met which seconds.

    Args:
        waveform: `(samples,)` at 16 kHz, as [`MerhanProcessor.load_audio`] gives it, or None.
        text, speaker, context: as the processor takes them.
        label: what a person said that it is, if anyone did.
    """
    unbounded = copy(processor)
    unbounded.max_seconds = unbounded.trim_silence = None  # the waveform has been cut already
    recogniser = EmotionRecognitionPipeline(model=model, processor=unbounded)
    audio = None if waveform is None else {"array": waveform, "sampling_rate": SAMPLING_RATE}
    text = text or None
    found = recogniser({"audio": audio, "text": text, "speaker": speaker, "context": context}, explain=True)
    met = [(one["word"], found["seconds"][int(np.argmax(one["attention"]))]) for one in found["words"]]
    return render(
        "explanation.html.jinja",
        title=title,
        label=label,
        text=text,
        found=found,
        met=met,
        sound=None if waveform is None else sound(waveform),
        drawing=None if waveform is None else picture(lambda figure: draw(figure, waveform, found)),
    )


def require_raw(model: MerhanForSequenceClassification, processor: MerhanProcessor):
    """Refuse a model that is given features: there is no sound and there are no words to point at."""
    if given := sorted(set(model.config.modalities) - set(processor.modalities)):
        raise InputError(f"explain: this model reads features in place of {' and '.join(given)}; nothing to point at.")


def draw(figure: Any, waveform: np.ndarray, found: dict[str, Any]):
    """Waveform, spectrogram, and where each word's attention lies, over one axis of seconds."""
    words = found["words"]
    figure.set_size_inches(9, 3.6 + 0.25 * len(words))
    axes = figure.subplots(3 if words else 2, sharex=True, height_ratios=[1, 1.6, *([0.35 * len(words)] * bool(words))])
    duration = len(waveform) / SAMPLING_RATE
    axes[0].plot(np.arange(len(waveform)) / SAMPLING_RATE, waveform, linewidth=0.4)
    axes[0].set(ylabel="sound", yticks=[])
    axes[1].specgram(waveform + 1e-6, NFFT=400, noverlap=240, Fs=SAMPLING_RATE, cmap="magma", vmin=-140)
    axes[1].set(ylabel="Hz")
    if words:
        attention = np.array([one["attention"] for one in words])
        extent = (0, duration, len(words) - 0.5, -0.5)
        top = max(attention.max(), 2 / attention.shape[1])  # attention to all frames alike is of middle darkness
        axes[2].imshow(attention, aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
        axes[2].set_yticks(range(len(words)), [one["word"] for one in words])
    axes[-1].set(xlabel="seconds", xlim=(0, duration))


def _sound(row: dict[str, Any], processor: MerhanProcessor) -> np.ndarray | None:
    return processor.load_audio(row["audio"], *segment(row.get("start"), row.get("end"))) if row["audio"] else None
