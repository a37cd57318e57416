"""The page to try a model, in a browser: no error, no outside request, phone and desktop, light and dark."""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
import soundfile
import torch
from browser import CHROMIUM, Page, chromium
from conftest import LABELS
from documents import PROJECT
from tiny_whisper import tiny_whisper

from merhan.cli.main import main
from merhan.hub.space import write_space
from merhan.models.building import build_model
from merhan.prediction.transcription import Transcriber
from processing_merhan import load_audio


gradio = pytest.importorskip("gradio", reason="gradio is not installed")
pytest.importorskip("silero_vad", reason="silero-vad is not installed")
SPACE = PROJECT / "hub_card" / "space"
WON, CALL = SPACE / "examples" / "we-won.mp3", SPACE / "examples" / "a-call.mp3"


def in_browser(test):
    """A server and a browser, each with torch or a profile of its own to load."""
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")(test))


@pytest.fixture(scope="module")
def model(tmp_path_factory, demo, tiny_recipe, processor) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = build_model(tiny_recipe, LABELS, demo)
    model.config.temperature = {"audio+text": 0.05, "audio": 0.05, "text": 0.05}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@contextmanager
def served(folder: Path, code: Path, *command: str) -> Iterator[str]:
    """The address of a page that a process serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_SERVER_PORT": port}
    with (folder / "log.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=code, env=os.environ | own, stdout=output, stderr=output
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """The page of `merhan space`."""
    with served(tmp_path_factory.mktemp("space"), PROJECT, "-m", "merhan", "space", str(model)) as address:
        yield address


def wait_for(address: str, process: subprocess.Popen, log: Path):
    opener = build_opener(ProxyHandler({}))
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        try:
            opener.open(address, timeout=30).close()
            return
        except (URLError, ConnectionError):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8"))


PICTURES = os.environ.get("MERHAN_PICTURES")  # a folder for screenshots
TEXT = "document.querySelector('#result').innerText"
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
READY = "['textarea', 'input[type=file]', '.gallery-item'].every(x => document.querySelector(x))"


def picture(page: Page, name: str):
    if PICTURES:
        time.sleep(1)  # for what fades in
        page.screenshot(Path(PICTURES, f"space-{name}.png"))


def require_quiet(page: Page, address: str):
    """No error of the console, and no request to anybody else."""
    assert not page.errors and page.requests
    outside = [url for url in page.requests if not url.startswith((address, "data:", "blob:", "about:"))]
    assert outside == []


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_in_a_browser(address, tone, tmp_path, width, dark):
    name = f"{width}-{'dark' if dark else 'light'}"
    with chromium(tmp_path) as page:
        page.open(address, width, 900, dark)
        page.wait(READY)
        assert page.run("matchMedia('(prefers-color-scheme: dark)').matches") == dark
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(json.loads(background.replace("rgb(", "[").replace(")", "]"))) < 200) == dark, background
        for heading in ("Limits", "Privacy"):
            assert heading in page.run("document.body.innerText")

        page.run("document.querySelector('textarea').focus()")
        page.type("the dinner was lovely")
        page.press("Enter", 13)
        page.wait(f"{TEXT}.includes('alone')")
        assert "From the words alone." in page.run(TEXT)
        for label in LABELS:
            assert label in page.run(TEXT)

        upload(page, tone())
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('without the')")
        text = page.run(TEXT)
        assert "voice" in text and "words" in text and "score" in text and "the dinner was lovely" in text
        picture(page, f"utterance-{name}")
        assert page.run(WIDTH) <= 0, "the page is wider than the window"

        take_example(page, "A telephone call (voice)", "0:21")
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('timeline is below')")
        page.frame("Timeline of a-call.mp3")
        picture(page, f"timeline-{name}")
        assert page.run(WIDTH) <= 0, "the page is wider than the window"
        require_quiet(page, address)


@in_browser
def test_a_screen_reader_is_told_of_everything(address, tmp_path):
    with chromium(tmp_path) as page:
        page.open(address, 1280, 900, False)
        page.wait(READY)
        assert page.unnamed() == []
        names = {name for _, name, _ in page.controls()}
        assert {
            "Words",
            "Recognise",
            "Record audio",
            "Upload file",
            "We won, we really won! (voice and words)",
        } <= names
        page.run("document.querySelector('#result [role=status]').is_first = true")
        take_example(page, "We won, we really won! (voice and words)", "0:02")
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('without the')")
        assert page.run("document.querySelector('#result [role=status]').is_first"), "what changes was there before"
        assert any(role == "status" and states.get("live") == "polite" for role, _, states in page.controls())
        assert ("image", "Waveform of 1.8 s") in [control[:2] for control in page.controls()]
        take_example(page, "A telephone call (voice)", "0:21")
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('timeline is below')")
        assert page.unnamed() == [] and page.unnamed(page.frame("Timeline of a-call.mp3")) == []


@in_browser
def test_the_page_by_keyboard_alone(address, tmp_path):
    """From one control to the next, to the answer of an example."""
    with chromium(tmp_path) as page:
        page.open(address, 1280, 900, False)
        page.wait(READY)
        reached = []
        for _ in range(30):
            page.press("Tab", 9)
            focused = page.run("document.activeElement.ariaLabel || document.activeElement.innerText || ''").strip()
            reached.append(focused)
            if focused.startswith("We won"):
                page.press("Enter", 13)
                page.wait("document.body.innerText.includes('0:02')")
                page.run("document.querySelector('textarea').focus()")
                page.press("Enter", 13)
                break
        page.wait(f"{TEXT}.includes('without the')")
        assert "Recognise" in reached and "Record audio" in reached


@in_browser
def test_a_recording_by_the_microphone(address, tmp_path):
    samples = load_audio(str(WON))
    soundfile.write(tmp_path / "voice.wav", np.tile(samples, 3), 16_000)
    microphone = [f"--use-file-for-fake-audio-capture={tmp_path / 'voice.wav'}"]
    microphone += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with chromium(tmp_path, *microphone) as page:
        page.open(address, 390, 900, False)
        page.wait(READY)
        page.run("document.querySelector('button[aria-label=\"Record audio\"]').click()")
        page.wait(f"!!{find('Record')}")
        page.run(button("Record"))
        page.wait(f"!!{find('Stop')}")
        time.sleep(1.5)  # of sound
        assert page.unnamed() == []
        page.run(button("Stop"))
        page.wait("performance.getEntriesByType('resource').some(x => x.name.includes('/gradio_api/file='))")
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('alone')")
        assert "From the voice alone." in page.run(TEXT)
        (name,) = [name for role, name, _ in page.controls() if role == "image" and name.startswith("Waveform of")]
        assert 0.5 < float(name.split()[2]) < 3
        picture(page, "microphone")
        require_quiet(page, address)


@in_browser
def test_what_is_published_runs_on_its_own(model, tmp_path):
    code = tmp_path / "code"
    write_space(code, str(model))
    check = "import merhan, processing_merhan; print(merhan.__file__, processing_merhan.__file__)"
    environment = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run([sys.executable, "-c", check], cwd=code, env=environment, capture_output=True, text=True)
    assert [Path(path).relative_to(code) for path in done.stdout.split()], done.stderr
    with served(tmp_path, code, "app.py") as address, chromium(tmp_path) as page:
        page.open(address, 1280, 900, False)
        page.wait(READY)
        take_example(page, "A telephone call (voice)", "0:21")
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('timeline is below')")
        require_quiet(page, address)


def find(name: str) -> str:
    """JavaScript for a button."""
    return f"[...document.querySelectorAll('button')].find(x => x.innerText.trim() === {name!r})"


def button(name: str) -> str:
    """JavaScript that presses a button."""
    return f"{find(name)}.click()"


def take_example(page: Page, name: str, clock: str):
    """Press an example's button, and wait until its recording is there, which lasts so long."""
    page.run(button(name))
    page.wait(f"document.body.innerText.includes({clock!r})")


def upload(page: Page, path: Path):
    page.wait("!!document.querySelector('input[type=file]')")
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    page.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
    page.wait("!document.querySelector('input[type=file]')")


@pytest.fixture(scope="module")
def app() -> dict:
    return runpy.run_path(str(SPACE / "app.py"), run_name="tested")


def test_uncertain_answers_are_left_open_and_labels_escaped(app):
    result = {
        "scores": [{"label": "<joy>", "score": 0.55}, {"label": "anger", "score": 0.45}],
        "contributions": {"audio": 0.2, "text": -0.1},
    }
    shown = app["show"](result, 0.5, ["voice", "words"])
    assert "<b>&lt;joy&gt;</b>, score 0.55" in shown and "<joy>" not in shown and "-0.10" in shown
    assert "<b>uncertain</b>, at best &lt;joy&gt;" in app["show"](result, 0.6, ["voice", "words"])


def recognise(sound: dict) -> dict:
    """Three words, the last two half a second before the end."""
    seconds = len(sound["raw"]) / sound["sampling_rate"]
    words = [("we", 0.2, 0.5), ("<so>", seconds - 0.5, seconds - 0.3), ("won", seconds - 0.3, seconds)]
    chunks = [{"text": word, "timestamp": (start, end)} for word, start, end in words]
    return {"text": " ".join(word for word, _, _ in words), "chunks": chunks}


def test_words_are_over_the_waveform_at_their_times(app, recogniser):
    sound = app["read"](recogniser, str(WON))
    shown = app["answer_utterance"](recogniser, Transcriber(recognise), sound, " ", 0.0)
    seconds = len(sound) / 16_000
    assert f'aria-label="Waveform of {seconds:.1f} s: we at 0.2 s, &lt;so&gt; at {seconds - 0.5:.1f} s' in shown
    for word, start in (("we", 0.2), ("&lt;so&gt;", seconds - 0.5), ("won", seconds - 0.3)):
        assert f'<text x="{100 * start / seconds:.2f}%" dx="4" y="1em">{word}</text>' in shown
    assert "The words were heard by recognise, and used." in shown and "without the" in shown
    typed = app["answer_utterance"](recogniser, Transcriber(recognise), sound, "We <won>", 0.0)
    assert "<text" not in typed and "Waveform of" in typed and '<p class="said">We &lt;won&gt;</p>' in typed
    other = Transcriber(lambda sound: {**recognise(sound), "chunks": [], "language": "german"}, language="en")
    foreign = app["answer_utterance"](recogniser, other, sound, "", 0.0)
    assert "and not used." in foreign and "From the voice alone." in foreign


def test_no_word_covers_the_next(app, recogniser):
    words = Transcriber(recognise)(np.ones(16_000 * 3, np.float32)).words
    pixels = app["width"](words, 3.0)
    for word, later in zip(words, [*words[1:], words[-1]._replace(start=3.0)], strict=True):
        assert (later.start - word.start) / 3 * pixels >= 8 * len(word.word)
    assert app["width"]([], 3.0) == 0 and app["width"](words * 50, 3.0) == 1200


def test_a_long_recording_is_answered_by_its_timeline(app, recogniser):
    answer, page = app["answer_long"](recogniser, Transcriber(recognise), str(CALL), "unused", 0.0)
    assert "It lasts 20.9 s, and the model reads 3 s at a time" in answer
    assert "The words were not used" in answer and " utterances</b>: " in answer
    assert page.startswith('<iframe title="Timeline of the recording" sandbox="allow-scripts" srcdoc="')
    assert "data:audio/ogg;base64," in page and "&lt;h1&gt;Timeline of a-call.mp3" in page
    assert "&amp;lt;so&amp;gt;" in page, "the words that the recogniser heard"
    sound = app["read"](recogniser, str(CALL))
    assert app["is_long"](recogniser, sound) and not app["is_long"](recogniser, sound[:48_000])


def test_the_command_passes_port_and_recogniser(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr("merhan.hub.space.run_space", lambda *options: calls.append(options))
    main(["space", "me/model", "--port", "7999", "--transcribe", str(tiny_whisper(tmp_path)), "--language", "en"])
    main(["space", "me/model"])
    (first, second) = calls
    assert first[:2] == ("me/model", 7999) and first[2].language == "english" and second == ("me/model", None, None)
    with pytest.raises(SystemExit):
        main(["space", "me/model", "--language", "en"])
    assert "language: is that of the words that a recogniser hears; name one" in capsys.readouterr().err


def test_what_cannot_be_read_is_a_sentence(app, recogniser, tone, monkeypatch, tmp_path):
    page = app["make_page"](recogniser)
    (answer,) = {function.fn for function in page.fns.values() if function.fn.__name__ == "answer"}
    (tmp_path / "text.wav").write_text("no sound", encoding="utf-8")
    for inputs, words in (
        ((str(tmp_path / "text.wav"), ""), "The recording cannot be used"),
        ((None, " "), "Give voice or words first."),
        ((None, "no " * 2000), "tokens, and the text backbone reads at most"),
        ((str(tone(seconds=600.1)), ""), "lasts 10 minutes, and this page reads 10: cut out a part"),
    ):
        shown, timeline = answer(*inputs, 0.4)
        assert words in shown and timeline == ""
    shown, timeline = answer(str(CALL), "", 0.4)
    assert "timeline is below" in shown and timeline.startswith("<iframe")
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    shown, timeline = answer(str(CALL), "", 0.4)
    assert "pip install &#x27;merhan[timeline]&#x27;" in shown and timeline == ""


@pytest.mark.parametrize(("modalities", "count"), [(["audio", "text"], 4), (["audio"], 3), (["text"], 3)])
def test_examples_are_of_what_the_model_reads(app, modalities, count):
    with gradio.Blocks() as page:
        app["show_examples"](modalities, gradio.Audio(type="filepath"), gradio.Textbox())
    (dataset,) = [block for block in page.blocks.values() if isinstance(block, gradio.Dataset)]
    assert len(dataset.samples) == len(dataset.sample_labels) == count
    assert all(len(row) == len(modalities) and any(row) for row in dataset.samples)


def test_the_examples_and_the_package_travel_with_a_published_page(tmp_path):
    write_space(tmp_path / "space", "me/model")
    names = {path.relative_to(tmp_path / "space").as_posix() for path in (tmp_path / "space").rglob("*.*")}
    own = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "merhan").rglob("*.*")}
    assert {name for name in own if name.endswith((".py", ".jinja"))} <= names
    assert not [name for name in names if name.endswith(".pyc")]
    for example in (SPACE / "examples").iterdir():
        assert (tmp_path / "space" / "examples" / example.name).read_bytes() == example.read_bytes()
        assert example.stat().st_size < 2**17
    assert 'MODEL = "me/model"' in (tmp_path / "space" / "app.py").read_text(encoding="utf-8")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["train"], *extras["report"], *extras["timeline"]]
    lines = (tmp_path / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [line for line in needed if not line.startswith("merhan")]
