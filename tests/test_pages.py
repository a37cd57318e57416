"""The HTML reports in a browser: no request, no error, no horizontal overflow on a phone, light and dark."""

import html
import json
import re
import shutil
import subprocess
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from browser import chromium
from scipy.special import log_softmax

import merhan.prediction.timeline_page
from merhan import api
from merhan.data.audio_facts import measure_recordings
from merhan.data.loading import load_data
from merhan.errors import InputError
from merhan.evaluation import explanation
from merhan.evaluation.evaluate import evaluate_split
from merhan.evaluation.explanation import explain, explain_rows, require_raw_inputs
from merhan.evaluation.report import group_sections
from merhan.evaluation.report_charts import training_charts
from merhan.prediction.curve import smoothed_curve
from merhan.prediction.timeline import Timeline
from merhan.prediction.timeline_page import timeline_page, waveform_path
from merhan.recipe.schema import DataRecipe
from merhan.reporting.markdown_tables import risk_coverage_rows, risk_coverage_table
from merhan.reporting.svg_charts import Series, line_chart, number_axis
from merhan.training.stage_history import StageHistory


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Loads a page in a frame of the width of a window, and writes what it measures into its own title.
PROBE = """<iframe id=page width={width} height=800 srcdoc="{page}"></iframe><script>
page.onload = () => {{
  const inside = page.contentDocument, style = page.contentWindow.getComputedStyle(inside.body)
  const pictures = [...inside.querySelectorAll("svg:not([aria-hidden]), img, audio")]
  const tables = [...inside.querySelectorAll("table")]
  document.title = JSON.stringify({{
    overflow: inside.documentElement.scrollWidth - inside.documentElement.clientWidth,
    unnamed: pictures.filter(picture => !picture.ariaLabel && !picture.alt).length,
    unscrollable: tables.filter(table => !table.closest("[role=region][tabindex][aria-label]")).length,
    color: style.color,
    dark: page.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    requests: page.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    headings: [...inside.querySelectorAll("h1, h2")].map(heading => heading.textContent),
  }})
}}</script>"""


@pytest.fixture
def data(demo, tmp_path):
    demo.to_parquet(tmp_path / "manifest.parquet")
    recipe = DataRecipe(corpus="manifest", source=str(tmp_path / "manifest.parquet"))
    return load_data(recipe, ["audio", "text"], ["audio", "text"], "test")


@pytest.fixture
def page(trained_like, processor, data, tmp_path) -> str:
    """The report of an untrained model, which has errors to show, with the training history of a run."""
    (tmp_path / "recipe.yaml").write_text("run_name: example\nstages: [{name: warmup}]\n")
    log = []
    for epoch in (1, 2, 3):
        log.append({"loss": 1 / epoch, "epoch": epoch})
        log.append({"eval_loss": 1.0, "eval_uar": 0.4, "epoch": epoch})
    state = {"log_history": [*log, {"train_runtime": 90.0}, {"peak_memory": 1.5}]}
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "trainer_state.json").write_text(json.dumps(state))
    evaluate_split(trained_like.eval(), processor, data, "test", tmp_path / "evaluation")
    return (tmp_path / "evaluation" / "test" / "report.html").read_text()


def browse(page: str, folder: Path, width: int, dark: bool) -> tuple[dict, str]:
    """Open a page in a window of a width; returns what the probe measured, and the console."""
    file = folder / "probe.html"
    file.write_text(PROBE.format(width=width, page=html.escape(page)))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000"]
    command += [f"--blink-settings=preferredColorScheme={int(not dark)}", file.as_uri()]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", process.stdout)
    console = "\n".join(line for line in process.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(title[1])), console


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_report_in_a_browser(page, tmp_path, width, dark):
    measured, console = browse(page, tmp_path, width, dark)
    assert measured["overflow"] <= 0, "the page is wider than the window"
    assert measured["dark"] == dark and (measured["color"] == "rgb(255, 255, 255)") == dark
    assert measured["unnamed"] == 0, "a screen reader has no name for a picture"
    assert measured["unscrollable"] == 0, "a table is not in a region that scrolls"
    expected = ["Scores", "Confusion matrix", "Per-class scores", "Scores by speaker", "Calibration", "Risk-coverage"]
    expected += ["Most confident errors", "Training curves"]
    headings = [heading for heading in measured["headings"] if heading in expected]
    assert headings == expected
    assert not measured["requests"] and not console
    broken = page.replace("<h1>", '<img src="http://127.0.0.1:9/a.png" alt="a"><script>nothing()</script><h1>')
    measured, console = browse(broken, tmp_path, width, dark)
    assert measured["requests"] == ["http://127.0.0.1:9/a.png"], "the probe notices a request"
    assert "nothing is not defined" in console, "the probe notices an error"


def test_the_report_embeds_its_audio_and_names_the_model(page):
    assert "data:audio/ogg;base64," in page and "1.5 minutes" in page and "1.5 GiB" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(address.startswith("data:") for address in addresses)
    for fact in ("example: test split, audio and text", "wav2vec2", "roberta", "hybrid (local, cross, global)"):
        assert fact in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", page)


def test_scores_are_compared_with_the_votes_if_there_are_any(trained_like, processor, data, tmp_path):
    rows = data.rows.assign(votes="")
    rows.loc[rows["split"].eq("test").idxmax(), "votes"] = json.dumps({"joy": 2, "calm": 1, "other": 4})
    rows.loc[rows.index[rows["split"].eq("test")][1:3], "votes"] = ['{"other": 3}', '{"other": 1, "joy": 0}']
    tested = data._replace(rows=rows)
    trained_like.config.temperature = {"audio+text": 2.0}
    metrics = evaluate_split(trained_like.eval(), processor, tested, "test", tmp_path / "evaluation")
    first = pd.read_parquet(tmp_path / "evaluation" / "test" / "predictions.parquet")["logits"][0]
    logs = dict(zip(metrics["labels"], log_softmax(first / 2), strict=True))
    assert metrics["votes"]["n"] == 1
    assert metrics["votes"]["cross_entropy"] == pytest.approx(-(2 * logs["joy"] + logs["calm"]) / 3, abs=1e-5)
    assert "1 utterances with annotator votes" in (tmp_path / "evaluation" / "test" / "report.html").read_text()


def test_sound_that_the_model_does_not_read_is_noted(trained_like, processor, data, tmp_path, monkeypatch):
    test = data.rows[data.rows["split"] == "test"]
    cut = copy(processor)
    cut.max_seconds = float(test["duration"].median())
    metrics = evaluate_split(trained_like.eval(), cut, data, "test", tmp_path / "evaluation")
    long = test["duration"][test["duration"] > cut.max_seconds]
    (note,) = metrics["notes"]
    assert note.startswith(f"test split: {len(long)} of {len(test)} rows have more than {cut.max_seconds:g} s of sound")
    assert f"{(long - cut.max_seconds).sum() / test['duration'].sum():.1%} of all sound is left out" in note
    for name in ("report.html", "report.md"):
        assert "of all sound is left out" in (tmp_path / "evaluation" / "test" / name).read_text(encoding="utf-8")
    assert evaluate_split(trained_like, processor, data, "test", tmp_path / "whole")["notes"] == []
    warnings, recipe = [], SimpleNamespace(stages=[SimpleNamespace(name="first")], seed=0)
    monkeypatch.setattr(api.logger, "warning", warnings.append)
    with pytest.raises(AttributeError):  # behind the notes
        trained_on = data._replace(rows=measure_recordings(data.rows, "demo")[0])
        api._train_stages(recipe, trained_on, trained_like, cut, (None, None), tmp_path)
    assert [text.split(" rows")[0].split()[1] for text in warnings if "of sound" in text] == ["train:", "validation:"]
    text = evaluate_split(trained_like, cut, data, "test", tmp_path / "text", condition="text")
    assert text["notes"] == [], "it reads no sound"


def test_training_curves_show_every_epoch():
    epochs = [
        {"epoch": 1.0, "loss": 2.0, "validation_loss": 1.0, "uar": 0.5},
        {"epoch": 2.0, "loss": None, "validation_loss": 0.5, "uar": 1.0},
    ]
    loss, uar = training_charts(StageHistory("warmup", epochs, 1.0, 1.0))
    training, validation = [points for _, points, _ in loss.lines]
    assert training == f"{(loss.box.left + loss.box.right) / 2:.1f},{loss.box.top:.1f}", "the highest loss, in epoch 1"
    quarters = [loss.box.bottom - share * (loss.box.bottom - loss.box.top) for share in (0.5, 0.25)]
    assert validation.split() == [
        f"{(loss.box.left + loss.box.right) / 2:.1f},{quarters[0]:.1f}",
        f"{loss.box.right:.1f},{quarters[1]:.1f}",
    ]
    assert [text for _, text in uar.x_ticks] == ["0", "1", "2"] and uar.y.label == "UAR"
    (_, points, _), *_ = uar.lines
    assert points.split()[1] == f"{uar.box.right:.1f},{uar.box.top:.1f}", "the last epoch with UAR 1 is the corner"
    assert training_charts(StageHistory("warmup", epochs[:1], 1.0, 1.0)) == [], "one epoch is no curve"


def test_a_chart_has_labels_ticks_and_a_legend():
    series = Series("model", [(0.0, 0.0), (0.5, 1.0)], "series1", [0.25, 0.75])
    chart = line_chart("Title", number_axis("coverage", 0.5), number_axis("risk", 1.0), [series])
    assert [text for _, text in chart.x_ticks] == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert [float(y) for y, _ in chart.y_ticks] == sorted((float(y) for y, _ in chart.y_ticks), reverse=True)
    assert chart.legend == [("series1", "model")]
    markers = chart.lines[0][2]
    assert float(markers[0].radius) < float(markers[1].radius) and "75% of the utterances" in markers[1].text


def test_equal_values_are_not_repeated():
    curve = {"coverage": [1.0] * 3, "threshold": [1.0] * 3, "risk": [0.0] * 3, "aurc": 0.0}
    assert risk_coverage_rows({"risk_coverage": curve}) == [["100%", "1.000", "1.000"]]
    assert risk_coverage_table({"risk_coverage": curve}) == ""
    groups = [{"name": name, "n": 20, "war": 1.0, "uar": 1.0} for name in "abc"]
    (section,) = group_sections({"groups": {"speaker": groups}})
    assert section["rows"] == [] and "All groups (3) have the same scores" in section["note"]


def test_each_utterance_gets_an_explanation_page(trained_like, processor, data, tmp_path):
    row = data.rows.iloc[3]
    (path,) = explain_rows(trained_like.eval(), processor, data, [row["utterance_id"]], tmp_path / "explained")
    page = path.read_text()
    assert f"<dt>Label</dt><dd>{row['label']}</dd>" in page and "data:audio/ogg;base64," in page
    assert all(f'<th scope="row">{modality}</th>' in page for modality in ["audio", "text"])
    assert all(f'<th scope="row">{html.escape(word)}</th>' in page for word, _ in processor.words(row["text"]))
    with pytest.raises(InputError, match="no such utterance; did you mean"):
        explain_rows(trained_like, processor, data, [row["utterance_id"] + "x"], tmp_path)


def test_the_explanation_shows_the_waveform_that_the_model_reads(trained_like, processor, monkeypatch):
    """The waveform is not trimmed a second time, which would remove the pause that it starts with."""
    cut = copy(processor)
    cut.trim_silence, cut.max_seconds = 30.0, 2.0
    noise = np.random.default_rng(0).standard_normal(44_800)
    noise[6_400:22_400] *= 0.001  # a pause, at the start of the middle two seconds
    waveform = cut.load_audio({"array": noise, "sampling_rate": 16_000})
    ends = []
    monkeypatch.setattr(
        explanation, "plot_explanation", lambda figure, waveform, content: ends.append(content["seconds"][-1])
    )
    explain(trained_like.eval(), cut, waveform, "the dinner was lovely")
    assert len(waveform) == 32_000 and ends[0] == pytest.approx(2.0, abs=0.05)


def test_models_of_features_are_not_explained(trained_like, processor):
    text_only = copy(processor)
    text_only.modalities = ["text"]
    with pytest.raises(InputError, match="reads features in place of audio"):
        require_raw_inputs(trained_like, text_only)


def test_an_explanation_of_text_shows_nothing_of_audio(trained_like, processor):
    page = explain(trained_like.eval(), processor, text="the dinner was lovely")
    assert "the dinner was lovely" in page and "Occlusion" not in page and "<img" not in page


@in_browser
def test_an_explanation_in_a_browser(trained_like, processor, tone, tmp_path):
    page = explain(trained_like.eval(), processor, processor.load_audio(tone()), "the dinner was lovely")
    measured, console = browse(page, tmp_path, 390, True)
    assert measured["overflow"] <= 0 and measured["unnamed"] == 0 and measured["unscrollable"] == 0
    assert not measured["requests"] and not console
    assert measured["headings"][1:] == ["Scores", "Modality contributions", "Attention"]


@pytest.fixture
def timeline(tone, tmp_path) -> Timeline:
    """Two speakers, one of whom is uncertain, and words of the other."""
    rows = [(0.2, 1.0, "Ann", "oh <well>", "joy", 0.8, 0.2, False), (1.5, 2.5, "Bob", None, "anger", 0.45, 0.55, True)]
    columns = ["start", "end", "speaker", "text", "prediction", "score_joy", "score_anger", "abstained"]
    utterances = pd.DataFrame(rows, columns=columns).assign(error=None)
    curve = smoothed_curve(utterances, ["anger", "joy"], 30.0, 0.6)
    words = [(0, 0.2, 0.6, "oh"), (0, 0.6, 1.0, "<well>")]
    table = pd.DataFrame(words, columns=["utterance", "start", "end", "word"])
    return Timeline(str(tone(seconds=30.0)), 30.0, ["anger", "joy"], utterances, curve, table, "whisper")


# Clicks and keys, and what the page shows then, added to the probe's page.
PLAYING = """<script>
addEventListener("load", () => {
  const state = () => [sound.currentTime, now.textContent, slider.getAttribute("aria-valuetext")].join("|"), log = []
  const press = key => slider.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}))
  seek(0.7); log.push(state())
  press("ArrowDown"); log.push(state())
  press("ArrowUp"); log.push(state())
  press("End"); log.push(state())
  press("ArrowLeft"); log.push(state())
  const before = slider.clientWidth
  press("+"); log.push(slider.clientWidth > before)
  console.error("STATES " + JSON.stringify(log))
})
</script>"""


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_timeline_in_a_browser(timeline, tmp_path, width, dark):
    page = timeline_page(timeline, tmp_path / "call.html")
    measured, console = browse(page, tmp_path, width, dark)
    assert measured["overflow"] <= 0 and measured["unnamed"] == 0 and measured["unscrollable"] == 0
    assert measured["dark"] == dark and not measured["requests"] and not console
    assert measured["headings"][1:] == ["Recording", "Utterances"]
    _, console = browse(page.replace("</body>", PLAYING + "</body>"), tmp_path, width, dark)
    states = json.loads(html.unescape(re.search(r"STATES (\[.*?\])\"", console)[1]).replace('\\"', '"'))
    assert states[0].startswith("0.7|0:00 Ann joy oh <well>") and states[0].count("0:00 Ann joy") == 2
    assert states[1].startswith("1.5|0:01 Bob uncertain"), "the next utterance"
    assert states[2].startswith("0.2|0:00 Ann joy"), "the one before"
    assert states[3].startswith("30|0:30") and states[4].startswith("25|0:25") and states[5] is True


@in_browser
def test_a_screen_reader_is_told_what_the_timeline_shows(timeline, tmp_path):
    (tmp_path / "call.html").write_text(timeline_page(timeline, tmp_path / "call.html"), encoding="utf-8")
    with chromium(tmp_path) as page:
        page.open((tmp_path / "call.html").as_uri(), 1280, 900, False)
        page.wait("typeof magnify === 'function' && sound.readyState > 0")
        assert page.unnamed() == []
        names = {control[:2] for control in page.controls()}
        assert {("button", "Zoom in"), ("button", "Zoom out"), ("button", "Play from 0:01")} <= names
        assert {("Audio", "The recording"), ("table", "Utterances"), ("slider", "Position in the recording")} <= names
        text = "In the curve of Ann: joy is highest for 0:01. In the curve of Bob: uncertain for 0:02."
        assert page.run("document.getElementById(slider.getAttribute('aria-describedby')).textContent") == text
        page.run("document.querySelector('#in').focus()")
        page.press("ArrowDown", 40)
        assert page.run("now.textContent").startswith("0:00 Ann joy") and page.run("now.ariaLive") == "polite"
        page.run("slider.focus()")
        page.press("ArrowDown", 40)
        (slider,) = [states for role, name, states in page.controls() if name == "Position in the recording"]
        assert slider["valuetext"].startswith("0:01 Bob uncertain") and page.run("now.ariaLive") == "off", "said once"
        assert not page.errors


def test_the_sound_of_a_long_recording_is_beside_the_page(timeline, tmp_path, monkeypatch):
    page = timeline_page(timeline, tmp_path / "call.html")
    assert "data:audio/ogg;base64," in page and "beside itself" not in page
    monkeypatch.setattr(merhan.prediction.timeline_page, "LONGEST_EMBEDDED", 2.0)
    page = timeline_page(timeline, tmp_path / "pages" / "call.html")
    assert 'src="../tone.wav"' in page and "data:audio" not in page and "beside itself: ../tone.wav" in page


def test_a_timeline_without_speech_or_answers(timeline, tmp_path):
    empty = timeline._replace(utterances=timeline.utterances.iloc[:0], curve=timeline.curve.iloc[:0])
    assert "There is no speech in this recording" in timeline_page(empty, tmp_path / "call.html")
    failed = timeline.utterances.assign(prediction=None, score_joy=None, score_anger=None, error="cannot be read")
    page = timeline_page(timeline._replace(utterances=failed), tmp_path / "call.html")
    assert "<dd>error 2</dd>" in page and page.count("<td>cannot be read</td>") == 2


def test_what_a_recording_is_called_and_says_is_escaped(timeline, tmp_path):
    page = timeline_page(timeline, tmp_path / "call.html")
    assert "&lt;well&gt;" in page and "<well>" not in page


def test_the_waveform_has_the_peaks_of_the_sound(timeline):
    blocks = [np.zeros(16_000, np.float32), np.full(16_000, 0.25, np.float32), np.full(15_999, -0.5, np.float32)]
    points = re.findall(r"([\d.]+) (-?[\d.]+)", waveform_path(blocks, 3.0))[1:]
    heights = [{float(y) for x, y in points if low < float(x) < low + 0.95} for low in (0.02, 1.02, 2.02)]
    assert heights == [{0.0}, {-0.5, 0.5}, {-1.0, 1.0}]
    assert max(float(x) for x, _ in points) < 3.0
