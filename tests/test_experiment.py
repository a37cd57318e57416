"""Experiments: which runs are started, which are kept, and what the report contains."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from merhan.cli import main as cli
from merhan.errors import InputError
from merhan.evaluation.prediction_table import score_predictions
from merhan.experiments.plan import plan_runs, read_experiment
from merhan.experiments.report import collect_result, compare_rows
from merhan.experiments.run import run_experiment
from merhan.recipe.loading import load_recipe, save_recipe


LABELS = ["anger", "joy", "sadness"]
RECIPE = """
run_name: x
data: {corpus: demo, source: SOURCE, options: {scale: 0.1}, protocol: "loso:speaker"}
model: {text_backbone: tiny}
stages: [{name: one, epochs: 1, learning_rate: {head: 1.0e-3}}]
"""
EXPERIMENT = """
name: e
output_dir: OUTPUT
set: [data.max_seconds=2]
rows:
  good: {config: recipe.yaml}
  bad: {config: recipe.yaml, set: [model.config.hidden_size=32]}
  good, text only: {config: recipe.yaml, condition: text}
folds: [0, 1]
seeds: [0, 7]
"""
# A launcher that replaces the training: it records its arguments, fails for the runs that the file `failing` lists, and
# else copies a prepared result.
LAUNCHER = """
import json, os, shutil, sys
from pathlib import Path
assert sys.argv[1:4] == ["-m", "merhan", "train"], sys.argv
words = sys.argv[4:]
if "--dry_run" in words:
    sys.exit("it does not fit" if "model.config.hidden_size=32" in words else 0)
changes = dict(word.split("=", 1) for before, word in zip(words, words[1:]) if before == "--set")
name = changes["run_name"].strip('"')
here = Path(__file__).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps([name, words, os.environ["OMP_NUM_THREADS"]]) + "\\n")
if name in json.loads((here / "failing").read_text()):
    print("first line", "\\n" * 30, "the last line")
    sys.exit(3)
folder = Path(json.loads(changes["output_dir"]), name)
for condition in ("test", "test--text"):
    shutil.copytree(here / "prepared" / name, folder / "evaluation" / condition, dirs_exist_ok=True)
shutil.copy(here / "prepared" / name / "recipe.yaml", folder)
(folder / "model").mkdir()
(folder / "model/README.md").touch()
"""


def predictions(rng: np.random.Generator, accuracy: float, speakers: range) -> pd.DataFrame:
    """Ten utterances of each speaker, predicted with an accuracy."""
    label = rng.choice(LABELS, 10 * len(speakers))
    predicted = np.where(rng.random(len(label)) < accuracy, label, rng.choice(LABELS, len(label)))
    speaker = np.repeat([f"s{number}" for number in speakers], 10)
    names = [f"{name}-{number}" for number, name in enumerate(speaker)]
    return pd.DataFrame({"utterance_id": names, "label": label, "prediction": predicted, "speaker": speaker})


@pytest.fixture
def experiment(tmp_path, monkeypatch, demo):
    """An experiment with two folds of five speakers and two seeds, and the prepared results of its runs."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    source = Path(demo["audio"].iloc[0]).parent.parent
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("SOURCE", str(source)))
    (tmp_path / "e.yaml").write_text(EXPERIMENT.replace("OUTPUT", str(tmp_path / "outputs")))
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    set_failing(tmp_path)
    for row, accuracy in (("good", 0.9), ("bad", 0.3)):
        for seed in (0, 7):
            for fold in (0, 1):
                prepare(tmp_path / "prepared" / f"{row}-fold{fold}-seed{seed}", accuracy, fold, seed)
    for runs in plan_runs(read_experiment(tmp_path / "e.yaml")).values():
        for planned in runs:
            recipe = load_recipe(planned.config, planned.changes)
            save_recipe(recipe, tmp_path / "prepared" / planned.folder.name / "recipe.yaml")
    return tmp_path


def prepare(folder: Path, accuracy: float, fold: int, seed: int):
    """Predictions and metrics of one run; the labels of a fold are the same in every row and seed."""
    rows = predictions(np.random.default_rng(fold), 1.0, range(5 * fold, 5 * fold + 5))
    rng = np.random.default_rng([seed, fold, round(10 * accuracy)])
    predicted = np.where(rng.random(len(rows)) < accuracy, rows["label"], rng.choice(LABELS, len(rows)))
    folder.mkdir(parents=True)
    rows = rows.assign(prediction=predicted)
    rows.to_parquet(folder / "predictions.parquet")
    protocol = {"name": "p", "version": 1, "hash": "h", "fold": fold}
    metrics = score_predictions(rows, LABELS) | {"protocol": protocol}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def set_failing(folder: Path, *names: str):
    """Make the runs of these names fail, and forget all calls."""
    (folder / "failing").write_text(json.dumps(names))
    (folder / "calls").write_text("")


def calls(folder: Path) -> list[list]:
    """Name, arguments and number of threads of every run that was started."""
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def run(folder: Path, **options) -> list[str]:
    return run_experiment(folder / "e.yaml", launcher=f"{sys.executable} {folder / 'launcher.py'}", **options)[1]


def test_missing_runs_are_started_once_and_in_order(experiment):
    assert run(experiment) == []
    names = [f"{row}-fold{fold}-seed{seed}" for seed in (0, 7) for fold in (0, 1) for row in ("good", "bad")]
    started = calls(experiment)
    assert [name for name, _, _ in started] == names, "rows with the same recipe share their runs"
    for _, words, _ in started:
        assert words[:2] == ["--config", str(experiment / "recipe.yaml")] and "--resume" not in words
        assert "data.max_seconds=2" in words and "evaluation.conditions=[text]" in words or "bad" in str(words)
    set_failing(experiment)
    assert run(experiment) == [] and calls(experiment) == []
    shutil.rmtree(experiment / "outputs/e/good-fold1-seed0/model")
    run(experiment)
    ((name, words, _),) = calls(experiment)
    assert name == "good-fold1-seed0" and words[-1] == "--resume", "it was interrupted"
    (experiment / "recipe.yaml").write_text((experiment / "recipe.yaml").read_text() + "trainer: {weight_decay: 0.5}\n")
    with pytest.raises(InputError, match="differs .* in trainer.weight_decay"):
        run(experiment)


def test_a_failed_run_is_reported_and_the_others_continue(experiment, monkeypatch, capsys):
    set_failing(experiment, "bad-fold0-seed0")
    words = ["merhan", "experiment", str(experiment / "e.yaml"), "--jobs", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--launcher", f"{sys.executable} {experiment / 'launcher.py'}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 1
    assert "bad-fold0-seed0.log: failed with exit code 3" in printed and "the last line" in printed
    assert "first line" not in printed, "only the end of the log is shown"
    assert "Not shown, because not all of their runs are finished: bad." in printed and "| good | 4 |" in printed
    assert len(calls(experiment)) == 8
    set_failing(experiment)
    assert run(experiment) == [] and [name for name, _, _ in calls(experiment)] == ["bad-fold0-seed0"]


def test_a_dry_run_tries_each_row_and_writes_nothing(experiment):
    (experiment / "recipe.yaml").write_text(RECIPE.replace("SOURCE", '"${oc.env:NOWHERE}"'))
    (failure,) = run(experiment, dry_run=True)
    assert failure == "bad: failed with exit code 1\n    it does not fit"
    assert not calls(experiment) and not (experiment / "outputs").exists()
    for old, new, expected in (
        ("condition: text", "condition: video", "evaluation.conditions: .*video"),
        ("seconds=2]", "seconds=2, 'evaluation.splits=[validation]']", r"is \['validation'\], and .* compares `test`"),
    ):
        path = experiment / "e.yaml"
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(InputError, match=expected):
            run(experiment, dry_run=True)


def test_parallel_runs_share_the_cores(experiment, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    run(experiment, jobs=3)
    assert {threads for _, _, threads in calls(experiment)} == {"2"}


def test_the_report_contains_the_scores_of_the_predictions(experiment):
    run(experiment)
    report = (experiment / "outputs/e/report.md").read_text()
    tables = [pd.read_parquet(file) for file in sorted((experiment / "prepared").glob("good-*/predictions.parquet"))]
    runs = [score_predictions(table, LABELS)["uar"] for table in tables]
    pooled = score_predictions(pd.concat(tables), LABELS)
    line = next(line for line in report.splitlines() if line.startswith("| good |"))
    assert f"| {np.mean(runs):.3f} ({np.std(runs, ddof=1):.3f}) |" in line
    low, high = pooled["intervals"]["uar"]
    assert f"| {pooled['uar']:.3f} [{low:.3f}, {high:.3f}] |" in line
    worse = next(line for line in report.splitlines() if line.startswith("| bad |"))
    assert ", over good |" in worse and float(worse.split("|")[-2]) < 0.05
    same = next(line for line in report.splitlines() if line.startswith("| good, text only |"))
    assert "+0.000 [+0.000, +0.000], over good" in same and float(same.split("|")[-2]) == 1
    page = (experiment / "outputs/e/report.html").read_text()
    assert f"{pooled['uar']:.3f} [{low:.3f}, {high:.3f}]" in page and "http" not in page and "src=" not in page


def test_few_speakers_are_compared_without_intervals_and_tests(experiment):
    for file in (experiment / "prepared").glob("*/predictions.parquet"):
        pd.read_parquet(file).assign(speaker="s").to_parquet(file)
    run(experiment)
    report = (experiment / "outputs/e/report.md").read_text()
    same = next(line for line in report.splitlines() if line.startswith("| good, text only |"))
    assert same.endswith("| +0.000, over good |  |")
    assert "| good, text only over good | UAR | +0.000 |  |  |" in report
    assert "nan" not in report and "No paired tests" in report and "randomisation" not in report


def test_repeated_seeds_do_not_narrow_the_intervals(experiment):
    """Rows of several seeds are of the same speakers, so pooling them adds no independent data."""
    content = read_experiment(experiment / "e.yaml")
    plan = plan_runs(content)
    run(experiment)
    intervals, differences = {}, {}
    for times in (1, 3):
        results = {name: collect_result(name, plan[name][:2] * times, None) for name in ("good", "bad")}
        differences[times], _ = compare_rows(content, results)
        intervals[times] = results["good"].pooled["intervals"]
    for score, bounds in intervals[1].items():
        assert intervals[3][score] == pytest.approx(bounds)
    for once, thrice in zip(differences[1], differences[3], strict=True):
        # Value, interval and p; McNemar's test, the last field, counts rows.
        assert thrice[3:-1] == pytest.approx(once[3:-1], nan_ok=True)


def test_folds_all_are_the_folds_of_the_protocol(experiment, demo):
    text = (experiment / "e.yaml").read_text()
    (experiment / "e.yaml").write_text(text.replace("[0, 1]", "all").replace("[0, 7]", "[0]"))
    plan = plan_runs(read_experiment(experiment / "e.yaml"))
    assert len(plan["good"]) == demo["speaker"].nunique()
    recipe = RECIPE.replace(', protocol: "loso:speaker"', "").replace("SOURCE", str(experiment / "demo"))
    (experiment / "recipe.yaml").write_text(recipe)
    with pytest.raises(InputError, match="folds: the protocol manifest-split has none"):
        plan_runs(read_experiment(experiment / "e.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds:", "seedz:", "unknown key 'seedz'; did you mean 'seeds'"),
        ("condition: text}", "aganst: bad}", "unknown key .*aganst"),
        ("condition: text}", "against: baad}", "against: no row 'baad'; did you mean 'bad'"),
        ("seeds: [0, 7]", "metric: uarr", "a metric of war, uar"),
        ("rows:", "rows: {}\nignored:", "unknown key 'ignored'"),
        ("hidden_size", "hiden_size", "did you mean 'hidden_size'"),
        ("recipe.yaml}", "gone.yaml}", "gone.yaml: no such recipe"),
        ("seconds=2]", "seconds=2, 'evaluation.splits=[test-acted]']", "evaluation.splits: is .*test-acted.* `test`"),
        ("[0, 1]", "some", "folds: is 'some', should be a list of different numbers"),
        ("[0, 1]", "1", "folds: is 1, should be a list of different numbers"),
        ("[0, 1]", "[0, one]", "folds: is .*'one'.*, should be a list of different numbers"),
        ("[0, 1]", "[]", r"folds: is \[\], should be a list of different numbers"),
        ("[0, 1]", "[1, 1]", r"folds: is \[1, 1\], .*different numbers"),
        ("[0, 7]", "[]", r"seeds: is \[\], should be a list of one or more different numbers"),
        ("[0, 7]", "[7, 7]", r"seeds: is \[7, 7\], .*different numbers"),
        ("name: e", "name: a/e", "name: is 'a/e', should be a plain folder's name"),
        ("name: e", "name: ..", "name: is '..', should be a plain folder's name"),
        (
            "  bad: {",
            '  "bad!": {config: recipe.yaml, set: [data.max_seconds=1]}\n  bad-: {',
            "'bad!' and 'bad-' would both run in .*bad--fold0-seed0",
        ),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(old, new, expected, experiment):
    path = experiment / "e.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=expected):
        run(experiment)
    assert not calls(experiment) and not (experiment / "outputs").exists()
    with pytest.raises(InputError, match="no such experiment"):
        read_experiment(experiment / "gone.yaml")


def test_jobs_and_launcher_are_checked(experiment):
    with pytest.raises(InputError, match="--jobs: is 0, should be 1 or more"):
        run(experiment, jobs=0)
    with pytest.raises(InputError, match="--launcher: there is no program 'acclerate'"):
        run_experiment(experiment / "e.yaml", launcher="acclerate launch")
    with pytest.raises(InputError, match="--launcher: .* is no command line"):
        run_experiment(experiment / "e.yaml", launcher="accelerate 'launch")
    assert not calls(experiment)
