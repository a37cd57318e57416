"""A page to try a MER-HAN model: record, upload or type, and see what it answers and why."""

import html
import os


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: no telemetry
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio
from transformers import pipeline


MODEL = "<this model>"  # its name on the Hub
RATE = 16_000
SENTENCES = ["I cannot believe it!", "Leave me alone.", "We won, we really won!", "It is all over now."]
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
footer { display: none !important; }
"""
THEME = gradio.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)


def make_page(recogniser) -> gradio.Blocks:
    """The page of a pipeline."""
    modalities = recogniser.model.config.modalities
    longest = recogniser.processor.max_seconds

    def answer(recording: str | None, words: str | None, minimum: float) -> str:
        """What is shown for an input, as HTML."""
        row = {"text": words} if (words or "").strip() else {}
        if recording:
            try:
                with open(recording, "rb") as file:
                    sound = recogniser.processor.load_audio(file.read(), truncation=False)
            except ValueError as error:
                return note(f"The recording cannot be used: {error}")
            if longest is not None and len(sound) > longest * RATE:
                seconds = len(sound) / RATE
                return note(f"The recording lasts {seconds:.1f} s, and the model reads {longest:g} s: cut out a part.")
            row["audio"] = {"array": sound, "sampling_rate": RATE}
        if not row:
            return note(f"Give {' or '.join(NAMES[name] for name in modalities)} first.")
        try:
            return show(recogniser(row, explain=True), minimum, [NAMES[name] for name in modalities if name in row])
        except ValueError as error:
            return note(str(error))

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
                result = gradio.HTML(note("The answer appears here."), elem_id="result")
        if "text" in modalities:
            gradio.Examples(SENTENCES, words, label="Examples")
        gradio.Markdown(f"## Limits\n{LIMITS}\n\n## Privacy\n{PRIVACY}")
        inputs = [recording, words, minimum]
        for event in (button.click, words.submit):
            event(answer, inputs, result, api_name=False, show_progress="minimal")
    return page


def note(sentence: str) -> str:
    """A sentence in place of an answer."""
    return f'<p class="note" role="status">{html.escape(sentence)}</p>'


def show(result: dict, minimum: float, names: list[str]) -> str:
    """The answer to an utterance: first label, all scores, and what voice and words contribute to it."""
    first = result["scores"][0]
    label, score = html.escape(first["label"]), first["score"]
    head = f"<b>{label}</b>, score {score:.2f}"
    if score < minimum:
        head = f"<b>uncertain</b>, at best {label} with a score of {score:.2f}"
    rows = [(entry["label"], entry["score"], "") for entry in result["scores"]]
    parts = [f'<p class="answer" role="status">{head}</p>', table("Calibrated scores", rows)]
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


def launch(page: gradio.Blocks, **options):
    """Serve the page."""
    page.queue(default_concurrency_limit=1, max_size=32)
    page.launch(theme=THEME, css=CSS, max_file_size="16mb", footer_links=[], share=False, ssr_mode=False, **options)


if __name__ == "__main__":
    launch(make_page(pipeline("emotion-recognition", model=MODEL, trust_remote_code=True)))
