"""A page to try a MER-HAN model: record, upload or type, and see what it answers and why."""

import html
import os
from pathlib import Path
from typing import Any


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: no telemetry
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio

from merhan import Predictor, load_checkpoint
from merhan.errors import missing_extra
from merhan.prediction.timeline import Timeline, answer_counts, timeline
from merhan.prediction.timeline_page import timeline_page, waveform_path
from merhan.prediction.transcription import Transcriber, Transcript, Word
from processing_merhan import EmotionRecognitionPipeline


MODEL = "<this model>"  # its name on the Hub
RATE = 16_000
LONGEST = 600  # seconds of a recording
# Recordings and sentences, each with what its button says. A speech synthesiser (eSpeak NG) made the recordings.
EXAMPLES = [
    ("we-won.mp3", "We won, we really won!", "We won, we really won! (voice and words)"),
    ("all-over.mp3", "It is all over now.", "It is all over now. (voice and words)"),
    ("a-call.mp3", "", "A telephone call (voice)"),
    ("", "I cannot believe it!", "I cannot believe it! (words)"),
]
STATUS = '<div role="status">${value}</div>'  # a screen reader says what changes in it
NAMES = {"audio": "voice", "text": "words"}
MINUTES_KEPT = 10

LIMITS = """The scores say how likely the model finds each emotion **as actors and annotators of its training data
showed and named it**. It does not know what a person feels. It is less reliable for other languages, accents, ages,
microphones and noise than those of its training; see the model card. Do not use it to judge people. At work and in
education, the law of the European Union forbids recognising emotions, but for medical and safety reasons."""
PRIVACY = f"""A recording is sent to the computer that runs this page, scored, and deleted there after about
{MINUTES_KEPT} minutes. This page sends it nowhere else, and collects no statistics of use."""

CSS = """
.answer { font-size: 1.7rem; line-height: 1.3; margin: 0 0 .25rem; }
.scores { width: 100%; table-layout: fixed; border-collapse: collapse; margin: .5rem 0 1rem; }
.scores caption { text-align: left; padding-bottom: .3rem; opacity: .8; }
.scores, .scores :is(tbody, tr, th, td) { border: 0 !important; }
.scores :is(th, td) { padding: .25rem 0 !important; }
.scores th { text-align: left; font-weight: 500; width: 6.5rem; overflow-wrap: anywhere; }
.scores td.number { width: 3.2rem; text-align: right; font-variant-numeric: tabular-nums; }
.bar { height: .75rem; border-radius: .4rem; background: var(--color-accent); min-width: 2px; }
.track { border-radius: .4rem; background: var(--border-color-primary); }
.less { background: #b45309; }
.note { color: var(--body-text-color); opacity: .8; margin: 0; }
.sound { overflow-x: auto; margin: 1.2rem 0 .3rem; }
.sound svg { display: block; width: 100%; height: 6rem; }
.sound path { fill: var(--color-accent); opacity: .45; }
.sound text { fill: var(--body-text-color); font-size: .9rem; }
.sound line { stroke: var(--body-text-color); opacity: .4; }
.said { margin: .3rem 0 0; }
#timeline iframe { width: 100%; height: 58rem; border: 1px solid var(--border-color-primary); border-radius: .5rem; }
footer { display: none !important; }
"""
THEME = gradio.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)


def make_page(recogniser: Any, transcriber: Transcriber | None = None) -> gradio.Blocks:
    """The page of a pipeline, and of a speech recogniser for recordings without words."""
    modalities = recogniser.model.config.modalities

    def answer(recording: str | None, words: str | None, minimum: float) -> tuple[str, str]:
        """What is shown for an input, as HTML: the answer, and the timeline of a long recording."""
        try:
            sound = read(recogniser, recording) if recording else None
            if sound is not None and is_long(recogniser, sound):
                return answer_long(recogniser, transcriber, recording, words, minimum)
            return answer_utterance(recogniser, transcriber, sound, words, minimum), ""
        except ImportError as error:  # of silero-vad, on a machine of one's own
            return note(missing_extra(error) or str(error)), ""
        except FileNotFoundError:  # this page deletes recordings after a while
            return note("The recording is no longer here; give it again."), ""
        except ValueError as error:
            return note(str(error)), ""

    with gradio.Blocks(
        title="Emotion recognition", analytics_enabled=False, delete_cache=(60, MINUTES_KEPT * 60)
    ) as page:
        gradio.Markdown(f"# Emotion recognition\nFrom {' and '.join(NAMES[name] for name in modalities)}: give "
                        f"{'either or both' if len(modalities) == 2 else 'an utterance'}.")  # fmt: skip
        with gradio.Row():
            with gradio.Column():
                recording = gradio.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Voice",
                    buttons=[],
                    visible="audio" in modalities,
                )
                words = gradio.Textbox(
                    label="Words", placeholder="What is said", max_length=2000, visible="text" in modalities
                )
                minimum = gradio.Slider(0, 1, 0.4, step=0.05, label="Leave it open below this score")
                button = gradio.Button("Recognise", variant="primary")
            with gradio.Column():
                result = gradio.HTML(note("The answer appears here."), html_template=STATUS, elem_id="result")
        along = gradio.HTML(elem_id="timeline")
        show_examples(modalities, recording, words)
        gradio.Markdown(f"## Limits\n{LIMITS}\n\n## Privacy\n{PRIVACY}")
        for event in (button.click, words.submit):
            event(answer, [recording, words, minimum], [result, along], api_name=False, show_progress="minimal")
    return page


def show_examples(modalities: list[str], recording: gradio.Audio, words: gradio.Textbox):
    """Buttons that fill in the recordings and sentences that a model reads."""
    inputs = {"audio": recording, "text": words}
    folder = Path(__file__).parent / "examples"
    rows, labels = [], []
    for sound, text, label in EXAMPLES:
        values = {"audio": str(folder / sound) if sound else None, "text": text}
        row = [values[name] for name in modalities]
        if any(row):
            rows.append(row)
            labels.append(label if len(modalities) == 2 else label.partition(" (")[0])
    gradio.Examples(rows, [inputs[name] for name in modalities], label="Examples", example_labels=labels)


def read(recogniser: Any, recording: str) -> Any:
    """The sound of a recording, `(samples,)` at 16 kHz.

    Raises:
        ValueError: it cannot be read, or is too long for this page.
    """
    try:
        sound = recogniser.processor.load_audio(Path(recording).read_bytes(), truncation=False)
    except ValueError as error:
        raise ValueError(f"The recording cannot be used: {error}") from None
    if len(sound) > LONGEST * RATE:
        minutes = len(sound) / RATE / 60
        raise ValueError(
            f"The recording lasts {minutes:.0f} minutes, and this page reads {LONGEST // 60}: cut out a part, or read "
            f"all of it with `merhan timeline`."
        )
    return sound


def is_long(recogniser: Any, sound: Any) -> bool:
    """Whether a sound has more than the model reads at a time."""
    longest = recogniser.processor.max_seconds
    return longest is not None and len(sound) > longest * RATE


def answer_utterance(
    recogniser: Any, transcriber: Transcriber | None, sound: Any, words: str | None, minimum: float
) -> str:
    """The answer to sound, words or both."""
    modalities = recogniser.model.config.modalities
    row: dict[str, Any] = {"text": words} if (words or "").strip() else {}
    transcript = None
    if sound is not None:
        row["audio"] = {"array": sound, "sampling_rate": RATE}
        if not row.get("text") and transcriber is not None:
            transcript = transcriber(sound)
            row |= usable_text(recogniser, transcriber, transcript)
    if not row:
        return note(f"Give {' or '.join(NAMES[name] for name in modalities)} first.")
    names = [NAMES[name] for name in modalities if name in row]
    shown = show(recogniser(row, explain=True), minimum, names)
    if sound is not None:
        shown += picture(sound, transcript.words if transcript else [])
    if transcript is not None:
        use = "used" if "text" in row else "not used"
        return shown + note(f"The words were heard by {transcriber.name}, and {use}.")
    return shown + (f'<p class="said">{html.escape(row["text"])}</p>' if row.get("text") else "")


def usable_text(recogniser: Any, transcriber: Transcriber, transcript: Transcript) -> dict[str, str]:
    """The words of a transcript as a field of an utterance; none where the model cannot use them."""
    text = transcriber.usable_text(transcript, recogniser.processor)
    return {"text": text} if text and "text" in recogniser.model.config.modalities else {}


def answer_long(
    recogniser: Any, transcriber: Transcriber | None, recording: str, words: str | None, minimum: float
) -> tuple[str, str]:
    """The answer to a recording that is longer than the model reads at a time."""
    predictor = Predictor(recogniser.model, recogniser.processor, min_score=minimum)
    result = timeline(predictor, recording, transcriber=transcriber)
    longest = recogniser.processor.max_seconds
    parts = [summary(result), note(f"It lasts {result.seconds:.1f} s, and the model reads {longest:g} s at a time: it "
                                   f"was split at its pauses. The timeline is below.")]  # fmt: skip
    if (words or "").strip():
        parts.append(note("The words were not used, because nobody knows when each was said."))
    page = html.escape(timeline_page(result, Path(recording)))
    frame = f'<iframe title="Timeline of the recording" sandbox="allow-scripts" srcdoc="{page}"></iframe>'
    return "\n".join(parts), frame


def summary(result: Timeline) -> str:
    """How often each answer is given in a recording."""
    counts = answer_counts(result).most_common()
    if not counts:
        return '<p class="answer">no speech</p>'
    shares = [f"{html.escape(label)} {count}" for label, count in counts]
    noun = "utterance" if len(result.utterances) == 1 else "utterances"
    return f'<p class="answer"><b>{len(result.utterances)} {noun}</b>: {", ".join(shares)}</p>'


def note(sentence: str) -> str:
    """A sentence in place of an answer."""
    return f'<p class="note">{html.escape(sentence)}</p>'


def show(result: dict, minimum: float, names: list[str]) -> str:
    """The answer to an utterance: first label, all scores, and what voice and words contribute to it."""
    first = result["scores"][0]
    label, score = html.escape(first["label"]), first["score"]
    head = f"<b>{label}</b>, score {score:.2f}"
    if score < minimum:
        head = f"<b>uncertain</b>, at best {label} with a score of {score:.2f}"
    rows = [(entry["label"], entry["score"], "") for entry in result["scores"]]
    parts = [f'<p class="answer">{head}</p>', table("Calibrated scores", rows)]
    shares = [(NAMES[name], value) for name, value in result["contributions"].items()]
    if shares:
        bars = [(name, value, "" if value >= 0 else "less") for name, value in shares]
        parts.append(table(f"By how much {label} scores lower without the", bars))
        parts.append(
            '<p class="note">Negative: higher without it. Both can be small where each alone says the same.</p>'
        )
    else:
        parts.append(f'<p class="note">From the {html.escape(names[0])} alone.</p>')
    return "\n".join(parts)


def table(title: str, rows: list[tuple[str, float, str]]) -> str:
    """A table of names, bars and numbers."""
    lines = []
    for name, value, kind in rows:
        bar = f'<div class="bar {kind}" style="width:{100 * abs(value):.1f}%"></div>'
        cells = f'<td><div class="track" aria-hidden="true">{bar}</div></td><td class="number">{value:.2f}</td>'
        lines.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    return f'<table class="scores"><caption>{title}</caption>{"".join(lines)}</table>'


def picture(sound: Any, heard: list[Word]) -> str:
    """The waveform of an utterance, and over it each word that a recogniser heard, at its time."""
    seconds = len(sound) / RATE
    name = f"Waveform of {seconds:.1f} s"
    if heard:
        name += ": " + ", ".join(f"{word.word} at {word.start:.1f} s" for word in heard)
    marks = []
    for word in heard:
        left = f"{100 * word.start / seconds:.2f}%"
        marks.append(f'<line x1="{left}" x2="{left}" y1="0" y2="100%"/>')
        marks.append(f'<text x="{left}" dx="4" y="1em">{html.escape(word.word)}</text>')
    wave = f'<svg y="1.4rem" height="4.6rem" viewBox="0 -1 {seconds:.3f} 2" preserveAspectRatio="none">'
    wave += f'<path d="{waveform_path([sound], seconds, 0.01)}"/></svg>'
    size = f"min-width:{width(heard, seconds):.0f}px"
    drawing = f'<svg role="img" aria-label="{html.escape(name)}" style="{size}">{wave}{"".join(marks)}</svg>'
    return f'<div class="sound" role="region" tabindex="0" aria-label="Waveform">{drawing}</div>'


def width(heard: list[Word], seconds: float) -> float:
    """Pixels of a waveform in which no word covers the next, but at most 400 a second."""
    ends = [*(word.start for word in heard[1:]), seconds]
    sizes = [9 * (len(word.word) + 1) / max(end - word.start, 0.01) for word, end in zip(heard, ends, strict=False)]
    return seconds * min(max(sizes, default=0), 400)


def launch(page: gradio.Blocks, **options):
    """Serve the page."""
    page.queue(default_concurrency_limit=1, max_size=32)
    page.launch(theme=THEME, css=CSS, max_file_size="16mb", footer_links=[], share=False, ssr_mode=False, **options)


if __name__ == "__main__":
    model, processor = load_checkpoint(MODEL)
    name = os.environ.get("TRANSCRIBE")  # a variable of the Space: a speech recogniser for recordings without words
    launch(make_page(EmotionRecognitionPipeline(model=model, processor=processor), Transcriber(name) if name else None))
