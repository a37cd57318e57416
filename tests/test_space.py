"""The page to try a model, in a browser: no error, no outside request, phone and desktop, light and dark."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
import torch
from browser import CHROMIUM, chromium
from conftest import LABELS
from documents import PROJECT


gradio = pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = [
    pytest.mark.slow,  # a server and a browser, each with torch or a profile of its own to load
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory, demo, tiny_recipe, processor) -> Path:
    from merhan.models.building import build_model

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = build_model(tiny_recipe, LABELS, demo)
    model.config.temperature = {"audio+text": 0.05, "audio": 0.05, "text": 0.05}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """The page of `merhan space`, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "log.txt"
    own = {
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(log.parent),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "merhan", "space", str(model), "--port", str(port)],
            env=os.environ | own,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/", process, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=30)


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
# What a screen reader has no name for.
UNNAMED = """[...document.querySelectorAll("button, input, textarea, select")].filter(x => x.offsetParent &&
  !(x.ariaLabel || x.innerText || x.title || (x.labels && x.labels.length) || x.getAttribute("aria-labelledby")))
  .map(x => x.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_in_a_browser(address, tone, tmp_path, width, dark):
    with chromium(tmp_path) as page:
        page.open(address, width, 900, dark)
        page.wait("!!document.querySelector('textarea') && !!document.querySelector('input[type=file]')")
        assert page.run("matchMedia('(prefers-color-scheme: dark)').matches") == dark
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(json.loads(background.replace("rgb(", "[").replace(")", "]"))) < 200) == dark, background

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
        assert "voice" in text and "words" in text and "score" in text
        if PICTURES:
            page.screenshot(Path(PICTURES, f"space-{width}-{'dark' if dark else 'light'}.png"))
        assert page.run(WIDTH) <= 0, "the page is wider than the window"
        assert page.run(UNNAMED) == []
        for heading in ("Limits", "Privacy"):
            assert heading in page.run("document.body.innerText")

        page.run("document.querySelector('button[aria-label=Clear], button[title=Clear]').click()")
        upload(page, tone("long.wav", seconds=4.0))
        page.run(button("Recognise"))
        page.wait(f"{TEXT}.includes('cut out')")
        assert "lasts 4.0 s, and the model reads 3 s" in page.run(TEXT)
        assert not page.errors and page.requests
        outside = [url for url in page.requests if not url.startswith((address, "data:", "blob:", "about:"))]
        assert outside == []


def button(name: str) -> str:
    """JavaScript that presses a button."""
    return f"[...document.querySelectorAll('button')].find(x => x.innerText.trim() === {name!r}).click()"


def upload(page, path: Path):
    page.wait("!!document.querySelector('input[type=file]')")
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    page.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
    page.wait("!document.querySelector('input[type=file]')")


def test_uncertain_answers_are_left_open_and_labels_escaped():
    import runpy

    app = runpy.run_path(str(PROJECT / "hub_card" / "space" / "app.py"), run_name="tested")
    result = {
        "scores": [{"label": "<joy>", "score": 0.55}, {"label": "anger", "score": 0.45}],
        "contributions": {"audio": 0.2, "text": -0.1},
    }
    shown = app["show"](result, 0.5, ["voice", "words"])
    assert "<b>&lt;joy&gt;</b>, score 0.55" in shown and "<joy>" not in shown and "-0.10" in shown
    assert "<b>uncertain</b>, at best &lt;joy&gt;" in app["show"](result, 0.6, ["voice", "words"])
