"""The report in a real browser, where there is one: no request to any host, no error, fits a phone, light and dark."""

import html
import json
import re
import shutil
import subprocess
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from merhan import explanation
from merhan.dataset import load_data
from merhan.errors import InputError
from merhan.evaluation import evaluate_split
from merhan.explanation import explain, explain_rows, require_raw
from merhan.history import Stage
from merhan.recipe import DataRecipe
from merhan.report import curves


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# What a reader's window shows: how far the page is wider than it, and how light its text and its ground are.
PROBE = """<iframe id=page width={width} height=800 srcdoc="{page}"></iframe><script>
page.onload = () => {{
  const inside = page.contentDocument, style = page.contentWindow.getComputedStyle(inside.body)
  document.title = JSON.stringify({{
    overflow: inside.documentElement.scrollWidth - inside.documentElement.clientWidth,
    unnamed: [...inside.querySelectorAll("svg, img, audio")].filter(one => !one.ariaLabel && !one.alt).length,
    color: style.color,
    dark: page.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    asked: page.contentWindow.performance.getEntriesByType("resource").map(one => one.name)
      .filter(one => !one.startsWith("data:")),
    headings: [...inside.querySelectorAll("h1, h2")].map(one => one.textContent),
  }})
}}</script>"""


@pytest.fixture
def data(demo, tmp_path):
    demo.to_parquet(tmp_path / "manifest.parquet")
    recipe = DataRecipe(corpus="manifest", source=str(tmp_path / "manifest.parquet"))
    return load_data(recipe, *[["audio", "text"]] * 2, "test")


@pytest.fixture
def page(trained_like, processor, data, tmp_path) -> str:
    """The report of a run that learnt nothing, hence has mistakes to listen to."""
    (tmp_path / "recipe.yaml").write_text("stages: [{name: warmup}]\n")
    log = [
        entry
        for epoch in (1, 2, 3)
        for entry in ({"loss": 1 / epoch, "epoch": epoch}, {"eval_loss": 1.0, "eval_uar": 0.4, "epoch": epoch})
    ]
    state = {"log_history": [*log, {"train_runtime": 90.0}, {"peak_memory": 1.5}]}
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "trainer_state.json").write_text(json.dumps(state))
    evaluate_split(trained_like.eval(), processor, data, "test", tmp_path / "evaluation")
    return (tmp_path / "evaluation" / "test" / "report.html").read_text()


def browse(page: str, folder: Path, width: int, dark: bool) -> tuple[dict, str]:
    """Open a page in a window of that width -> what the probe saw, and the console."""
    file = folder / "probe.html"
    file.write_text(PROBE.format(width=width, page=html.escape(page)))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", file.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", seen.stdout)
    console = "\n".join(line for line in seen.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(title[1])), console


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_report_in_a_browser(page, tmp_path, width, dark):
    seen, console = browse(page, tmp_path, width, dark)
    assert seen["overflow"] <= 0, "a reader would have to scroll sideways"
    assert seen["dark"] == dark and (seen["color"] == "rgb(255, 255, 255)") == dark
    assert seen["unnamed"] == 0, "a screen reader has no name for them"
    assert {"Its surest mistakes", "How it learnt, and what that cost"} <= set(seen["headings"])
    assert not seen["asked"] and not console
    stranger = page.replace("<h1>", '<img src="http://127.0.0.1:9/a.png" alt="a"><script>nothing()</script><h1>')
    seen, console = browse(stranger, tmp_path, width, dark)
    assert seen["asked"] == ["http://127.0.0.1:9/a.png"] and "nothing is not defined" in console, "the probe would tell"


def test_the_report_carries_its_sound_and_asks_for_nothing(page):
    assert "data:audio/ogg;base64," in page and "1.5 minutes" in page and "1.5 GiB" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(address.startswith("data:") for address in addresses)


def test_scores_are_held_against_the_votes_where_there_are_any(trained_like, processor, data, tmp_path):
    rows = data.rows.assign(votes="")
    rows.loc[rows["split"].eq("test").idxmax(), "votes"] = json.dumps({"joy": 2, "calm": 1, "other": 4})
    rows.loc[rows.index[rows["split"].eq("test")][1:3], "votes"] = ['{"other": 3}', '{"other": 1, "joy": 0}']
    tested = data._replace(rows=rows)
    trained_like.config.temperature = {"audio+text": 2.0}
    found = evaluate_split(trained_like.eval(), processor, tested, "test", tmp_path / "evaluation")
    first = pd.read_parquet(tmp_path / "evaluation" / "test" / "predictions.parquet")["logits"][0]
    logs = dict(zip(found["labels"], log_softmax(first / 2), strict=True))
    assert found["votes"]["n"] == 1
    assert found["votes"]["cross_entropy"] == pytest.approx(-(2 * logs["joy"] + logs["calm"]) / 3, abs=1e-5)
    assert "1 utterances with raters" in (tmp_path / "evaluation" / "test" / "report.html").read_text()


def test_curves_run_from_the_first_epoch_to_the_last():
    epochs = [{"epoch": 1.0, "loss": 2.0, "validation_loss": 1.0, "uar": 0.5}, {"epoch": 2.0, "loss": 1.0, "uar": 1.0}]
    found = curves(Stage("one", [{"validation_loss": 0.5, **epoch} for epoch in epochs], 1.0, 1.0))
    assert found == {
        "loss": "50.0,0.0 100.0,20.0",
        "validation_loss": "50.0,20.0 100.0,30.0",
        "uar": "50.0,20.0 100.0,0.0",
    }


def test_a_page_explains_each_utterance_that_is_asked_for(trained_like, processor, data, tmp_path):
    row = data.rows.iloc[3]
    (path,) = explain_rows(trained_like.eval(), processor, data, [row["utterance_id"]], tmp_path / "explained")
    page = path.read_text()
    assert f"its label is <strong>{row['label']}</strong>" in page and "data:audio/ogg;base64," in page
    assert all(f'<th scope="row">{word}</th>' in page for word in ["voice", "words"])
    assert all(f'<th scope="row">{html.escape(word)}</th>' in page for word, _ in processor.words(row["text"]))
    with pytest.raises(InputError, match="no such utterance; did you mean"):
        explain_rows(trained_like, processor, data, [row["utterance_id"] + "x"], tmp_path)


def test_a_page_draws_what_the_model_hears(trained_like, processor, monkeypatch):
    cut = copy(processor)
    cut.trim_silence, cut.max_seconds = 30.0, 2.0
    noise = np.random.default_rng(0).standard_normal(44_800)
    noise[6_400:22_400] *= 0.001  # a pause, with which the middle two seconds begin: trimmed again, they would lose it
    waveform = cut.load_audio({"array": noise, "sampling_rate": 16_000})
    drawn = []
    monkeypatch.setattr(explanation, "draw", lambda figure, waveform, found: drawn.append(found["seconds"][-1]))
    explain(trained_like.eval(), cut, waveform, "the dinner was lovely")
    assert len(waveform) == 32_000 and drawn[0] == pytest.approx(2.0, abs=0.05)


def test_features_cannot_be_pointed_at(trained_like, processor):
    words = copy(processor)
    words.modalities = ["text"]
    with pytest.raises(InputError, match="reads features in place of audio"):
        require_raw(trained_like, words)


def test_a_page_of_words_alone_claims_nothing_about_sound(trained_like, processor):
    page = explain(trained_like.eval(), processor, text="the dinner was lovely")
    assert "the dinner was lovely" in page and "Occlusion" not in page and "<img" not in page


@in_browser
def test_an_explanation_in_a_browser(trained_like, processor, tone, tmp_path):
    page = explain(trained_like.eval(), processor, processor.load_audio(tone()), "the dinner was lovely")
    seen, console = browse(page, tmp_path, 390, True)
    assert seen["overflow"] <= 0 and seen["unnamed"] == 0 and not seen["asked"] and not console
    assert seen["headings"][1:] == ["What voice and words contributed", "Which words met which seconds"]
