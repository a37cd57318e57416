"""Experiments: what runs, what does not run again, and what the table says of it."""

import fcntl
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from merhan import cli
from merhan.errors import InputError
from merhan.evaluation import figures
from merhan.experiment import compare_rows, gather, plan_runs, read_experiment, run_experiment
from merhan.recipe import load_recipe, save_recipe


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
  good, by its words: {config: recipe.yaml, condition: text}
folds: [0, 1]
seeds: [0, 7]
"""
# In place of train_hf_e2e.py: says what it was asked for, and does what the file `orders` says of a run.
LAUNCHER = """
import json, os, shutil, sys
from pathlib import Path
words = sys.argv[2:]
if "--dry_run" in words:
    sys.exit("it does not fit" if "model.config.hidden_size=32" in words else 0)
changes = dict(word.split("=", 1) for before, word in zip(words, words[1:]) if before == "--set")
name = changes["run_name"].strip('"')
here = Path(__file__).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps([name, words, os.environ["OMP_NUM_THREADS"]]) + "\\n")
if name in json.loads((here / "orders").read_text()):
    print("first line", "\\n" * 30, "the very reason")
    sys.exit(3)
folder = Path(json.loads(changes["output_dir"]), name)
for condition in ("test", "test--text"):
    shutil.copytree(here / "prepared" / name, folder / "evaluation" / condition)
shutil.copy(here / "prepared" / name / "recipe.yaml", folder)
(folder / "model").mkdir()
(folder / "model/README.md").touch()
"""


def predictions(rng: np.random.Generator, accuracy: float, speakers: range) -> pd.DataFrame:
    """Ten utterances of each speaker."""
    label = rng.choice(LABELS, 10 * len(speakers))
    guess = np.where(rng.random(len(label)) < accuracy, label, rng.choice(LABELS, len(label)))
    speaker = np.repeat([f"s{number}" for number in speakers], 10)
    names = [f"{one}-{number}" for number, one in enumerate(speaker)]
    return pd.DataFrame({"utterance_id": names, "label": label, "prediction": guess, "speaker": speaker})


@pytest.fixture
def experiment(tmp_path, monkeypatch, demo):
    """An experiment whose runs are played: two folds of five speakers, two seeds."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    source = Path(demo["audio"].iloc[0]).parent.parent
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("SOURCE", str(source)))
    (tmp_path / "e.yaml").write_text(EXPERIMENT.replace("OUTPUT", str(tmp_path / "outputs")))
    (tmp_path / "play.py").write_text(LAUNCHER)
    order(tmp_path)
    for row, accuracy in (("good", 0.9), ("bad", 0.3)):
        for seed in (0, 7):
            for fold in (0, 1):
                prepare(tmp_path / "prepared" / f"{row}-fold{fold}-seed{seed}", accuracy, fold, seed)
    for runs in plan_runs(read_experiment(tmp_path / "e.yaml")).values():
        for one in runs:
            save_recipe(load_recipe(one.config, one.changes), tmp_path / "prepared" / one.folder.name / "recipe.yaml")
    return tmp_path


def prepare(folder: Path, accuracy: float, fold: int, seed: int):
    # The labels of a fold are the same in every row and seed, only the guesses differ.
    rows = predictions(np.random.default_rng(fold), 1.0, range(5 * fold, 5 * fold + 5))
    rng = np.random.default_rng([seed, fold, round(10 * accuracy)])
    guess = np.where(rng.random(len(rows)) < accuracy, rows["label"], rng.choice(LABELS, len(rows)))
    folder.mkdir(parents=True)
    rows = rows.assign(prediction=guess)
    rows.to_parquet(folder / "predictions.parquet")
    found = figures(rows, LABELS) | {"protocol": {"name": "p", "version": 1, "hash": "h", "fold": fold}}
    (folder / "metrics.json").write_text(json.dumps(found))


def order(folder: Path, *failing: str):
    (folder / "orders").write_text(json.dumps(failing))
    (folder / "calls").write_text("")


def calls(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def run(folder: Path, **options) -> list[str]:
    return run_experiment(folder / "e.yaml", launcher=f"{sys.executable} {folder / 'play.py'}", **options)[1]


def test_what_is_missing_is_run_once_and_in_order(experiment):
    assert run(experiment) == []
    names = [f"{row}-fold{fold}-seed{seed}" for seed in (0, 7) for fold in (0, 1) for row in ("good", "bad")]
    found = calls(experiment)
    assert [name for name, _, _ in found] == names, "rows of one recipe share their runs"
    for _, words, _ in found:
        assert words[:2] == ["--config", str(experiment / "recipe.yaml")] and "--resume" in words
        assert "data.max_seconds=2" in words and "evaluation.conditions=[text]" in words or "bad" in str(words)
    order(experiment)
    assert run(experiment) == [] and calls(experiment) == []
    (experiment / "recipe.yaml").write_text((experiment / "recipe.yaml").read_text() + "trainer: {weight_decay: 0.5}\n")
    with pytest.raises(InputError, match="differs .* in trainer.weight_decay"):
        run(experiment)  # what is there is of other settings


def test_a_failing_run_is_told_and_the_others_go_on(experiment, monkeypatch, capsys):
    order(experiment, "bad-fold0-seed0")
    words = ["merhan", "experiment", str(experiment / "e.yaml"), "--jobs", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--launcher", f"{sys.executable} {experiment / 'play.py'}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert ended.value.code == 1
    assert "bad-fold0-seed0.log: failed with exit code 3" in said and "the very reason" in said
    assert "first line" not in said, "the end of the log is enough"
    assert "Without all of their runs, and so without figures: bad." in said and "| good | 4 |" in said
    assert len(calls(experiment)) == 8
    order(experiment)
    assert run(experiment) == [] and [name for name, _, _ in calls(experiment)] == ["bad-fold0-seed0"]


def test_a_rehearsal_asks_each_row_and_leaves_nothing(experiment):
    (experiment / "recipe.yaml").write_text(RECIPE.replace("SOURCE", '"${oc.env:NOWHERE}"'))
    (said,) = run(experiment, dry_run=True)
    assert said == "bad: failed with exit code 1\n    it does not fit"
    assert not calls(experiment) and not (experiment / "outputs").exists()
    for one, other, expected in (
        ("condition: text", "condition: video", "evaluation.conditions: .*video"),
        ("seconds=2]", "seconds=2, 'evaluation.splits=[validation]']", r"is \['validation'\], and .* compares `test`"),
    ):
        path = experiment / "e.yaml"
        path.write_text(path.read_text().replace(one, other))
        with pytest.raises(InputError, match=expected):
            run(experiment, dry_run=True)


def test_runs_at_a_time_share_the_cores(experiment, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    run(experiment, jobs=3)
    assert {threads for _, _, threads in calls(experiment)} == {"2"}


def test_a_run_that_another_process_is_at_is_left_alone(experiment):
    (experiment / "outputs/e").mkdir(parents=True)
    with open(experiment / "outputs/e/bad-fold1-seed7.log", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        (said,) = run(experiment)
    assert "bad-fold1-seed7: another process is at it" in said and len(calls(experiment)) == 7


def test_the_table_says_what_the_predictions_say(experiment):
    run(experiment)
    report = (experiment / "outputs/e/report.md").read_text()
    tables = [pd.read_parquet(file) for file in sorted((experiment / "prepared").glob("good-*/predictions.parquet"))]
    runs = [figures(one, LABELS)["uar"] for one in tables]
    pooled = figures(pd.concat(tables), LABELS)
    line = next(line for line in report.splitlines() if line.startswith("| good |"))
    assert f"| {np.mean(runs):.3f} ({np.std(runs, ddof=1):.3f}) |" in line
    low, high = pooled["intervals"]["uar"]
    assert f"| {pooled['uar']:.3f} [{low:.3f}, {high:.3f}] |" in line
    worse = next(line for line in report.splitlines() if line.startswith("| bad |"))
    assert ", over good |" in worse and float(worse.split("|")[-2]) < 0.05
    same = next(line for line in report.splitlines() if line.startswith("| good, by its words |"))
    assert "+0.000 [+0.000, +0.000], over good" in same and float(same.split("|")[-2]) == 1
    page = (experiment / "outputs/e/report.html").read_text()
    assert f"{pooled['uar']:.3f} [{low:.3f}, {high:.3f}]" in page and "http" not in page and "src=" not in page


def test_few_speakers_are_compared_by_the_value_alone(experiment):
    for file in (experiment / "prepared").glob("*/predictions.parquet"):
        pd.read_parquet(file).assign(speaker="s").to_parquet(file)
    run(experiment)
    report = (experiment / "outputs/e/report.md").read_text()
    same = next(line for line in report.splitlines() if line.startswith("| good, by its words |"))
    assert same.endswith("| +0.000, over good |  |")
    assert "| good, by its words over good | UAR | +0.000 |  |  |" in report
    assert "nan" not in report and "Without paired tests" in report and "randomisation" not in report


def test_more_seeds_of_the_same_say_no_more(experiment):
    """Pooling seeds must not make an interval or a p-value smaller: their rows are of the same speakers."""
    read = read_experiment(experiment / "e.yaml")
    plan = plan_runs(read)
    run(experiment)
    found = {}
    for times in (1, 3):
        results = {name: gather(name, plan[name][:2] * times, None) for name in ("good", "bad")}
        differences, _ = compare_rows(read, results)
        found[times] = [results["good"].pooled["intervals"], differences]
    for score, bounds in found[1][0].items():
        assert found[3][0][score] == pytest.approx(bounds)
    for once, thrice in zip(found[1][1], found[3][1], strict=True):
        assert thrice[3:-1] == pytest.approx(once[3:-1], nan_ok=True)  # value, interval, p, but not McNemar's, of rows


def test_all_folds_are_those_of_the_protocol(experiment, demo):
    text = (experiment / "e.yaml").read_text()
    (experiment / "e.yaml").write_text(text.replace("[0, 1]", "all").replace("[0, 7]", "[0]"))
    plan = plan_runs(read_experiment(experiment / "e.yaml"))
    assert len(plan["good"]) == demo["speaker"].nunique()
    recipe = RECIPE.replace(', protocol: "loso:speaker"', "").replace("SOURCE", str(experiment / "demo"))
    (experiment / "recipe.yaml").write_text(recipe)
    with pytest.raises(InputError, match="folds: manifest-split has none"):
        plan_runs(read_experiment(experiment / "e.yaml"))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("seeds:", "seedz:", "unknown key 'seedz'; did you mean 'seeds'"),
        ("condition: text}", "aganst: bad}", "unknown key .*aganst"),
        ("condition: text}", "against: baad}", "against: no row 'baad'; did you mean 'bad'"),
        ("seeds: [0, 7]", "metric: uarr", "a metric of war, uar"),
        ("rows:", "rows: {}\nignored:", "unknown key 'ignored'"),
        ("hidden_size", "hiden_size", "did you mean 'hidden_size'"),
        ("recipe.yaml}", "gone.yaml}", "gone.yaml: no such recipe"),
        ("seconds=2]", "seconds=2, 'evaluation.splits=[test-acted]']", "evaluation.splits: is .*test-acted.* `test`"),
        ("[0, 1]", "some", "folds: is 'some', should be a list of numbers"),
        ("[0, 1]", "1", "folds: is 1, should be a list of numbers"),
        ("[0, 1]", "[0, one]", "folds: is .*'one'.*, should be a list of numbers"),
        ("[0, 1]", "[]", r"folds: is \[\], should be a list of numbers"),
        ("[0, 1]", "[1, 1]", r"folds: is \[1, 1\], .*none twice"),
        ("[0, 7]", "[]", r"seeds: is \[\], should be a list of one number"),
        ("[0, 7]", "[7, 7]", r"seeds: is \[7, 7\], .*none of them twice"),
        ("name: e", "name: a/e", "name: is 'a/e', should be a plain folder's name"),
        ("name: e", "name: ..", "name: is '..', should be a plain folder's name"),
        (
            "  bad: {",
            '  "bad!": {config: recipe.yaml, set: [data.max_seconds=1]}\n  bad-: {',
            "'bad!' and 'bad-' would both run in .*bad--fold0-seed0",
        ),
    ],
)
def test_a_wrong_file_stops_before_anything_runs(one, other, expected, experiment):
    path = experiment / "e.yaml"
    path.write_text(path.read_text().replace(one, other, 1))
    with pytest.raises(InputError, match=expected):
        run(experiment)
    assert not calls(experiment) and not (experiment / "outputs").exists()
    with pytest.raises(InputError, match="no such experiment"):
        read_experiment(experiment / "gone.yaml")


def test_jobs_are_one_or_more_and_a_launcher_is_a_program(experiment):
    with pytest.raises(InputError, match="--jobs: is 0, should be 1 or more"):
        run(experiment, jobs=0)
    with pytest.raises(InputError, match="--launcher: there is no program 'acclerate'"):
        run_experiment(experiment / "e.yaml", launcher="acclerate launch")
    with pytest.raises(InputError, match="--launcher: .* is no command line"):
        run_experiment(experiment / "e.yaml", launcher="accelerate 'launch")
    assert not calls(experiment)
