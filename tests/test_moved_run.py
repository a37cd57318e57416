"""A run stands on its own: from any working folder, and moved apart from its recordings."""

import json
import shutil
from pathlib import Path

import pytest

from merhan import api
from merhan.cli import main as cli
from merhan.errors import InputError
from merhan.training import arguments, run_folder


RECIPE = """
run_name: small
output_dir: outputs
data: {corpus: demo, source: corpus, options: {scale: 0.1}, accept_leaks: [text], max_seconds: 2}
model: {audio_backbone: light, text_backbone: tiny, config: {hidden_size: 16, intermediate_size: 16}}
stages: [{name: warmup, epochs: 1, learning_rate: {head: 1.0e-3, audio: 1.0e-3}}]
trainer: {report_to: none, load_best_model_at_end: false}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache) -> Path:
    """A folder with a corpus and a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        api.train("recipe.yaml")
    return folder


@pytest.fixture
def elsewhere(trained, tmp_path, monkeypatch) -> Path:
    """Another machine: the run and the recordings, each in another place."""
    shutil.copytree(trained / "outputs" / "small", tmp_path / "run")
    shutil.copytree(trained / "corpus", tmp_path / "data" / "recordings")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interrupt(run: Path):
    """Leave of a run what one has that was killed before its first checkpoint."""
    for name in ("warmup", "model", "evaluation"):
        shutil.rmtree(run / name)


def weights_of(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def metrics_of(run: Path) -> dict:
    return json.loads((run / "evaluation" / "test" / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("option", [[], ["--source", "data/recordings"], ["--source", "data"]])
def test_a_moved_run_is_evaluated_where_it_is(option, elsewhere, trained):
    expected = metrics_of(elsewhere / "run")
    shutil.rmtree(elsewhere / "run" / "evaluation")
    if not option:  # from another folder, with the recordings where they were
        shutil.rmtree(elsewhere / "run")
        shutil.copytree(trained / "outputs" / "small", trained / "outputs" / "copy", dirs_exist_ok=True)
        cli.main(["evaluate", "--checkpoint", str(trained / "outputs" / "copy")])
        assert metrics_of(trained / "outputs" / "copy")["uar"] == expected["uar"]
        return
    if option[1] == "data":  # any folder above them
        (elsewhere / "data" / "recordings").rename(elsewhere / "data" / "corpus")
    cli.main(["evaluate", "--checkpoint", "run", *option])
    found = metrics_of(elsewhere / "run")
    for name in ("uar", "n", "calibration", "confusion_matrix", "protocol"):
        assert found[name] == expected[name], name


def test_recordings_that_are_not_found_are_named_with_the_remedy(elsewhere):
    with pytest.raises(InputError, match=r"run: .*\.wav: no such recording, as \d+ of \d+; say .* --source"):
        api.evaluate("run")
    with pytest.raises(InputError, match="--source run: holds neither"):
        api.evaluate("run", source="run")
    with pytest.raises(InputError, match="no rows of the split 'tst'; did you mean 'test'"):
        api.evaluate("run", split="tst")


def test_a_place_of_recordings_that_would_not_be_used_is_refused(elsewhere, capsys):
    with pytest.raises(InputError, match="--source: is where the recordings that a run recorded are now"):
        api.evaluate("run", manifest="run/manifest.parquet", source="data")
    with pytest.raises(SystemExit):
        cli.main(["explain", "run", "--text", "no", "--source", "data"])
    assert "--source: is where the recordings of --utterance are now" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_loses_no_context(elsewhere):
    recipe = elsewhere / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("context_turns: 0", "context_turns: 2"), encoding="utf-8")
    (elsewhere / "run" / "hashes.json").unlink()
    with pytest.raises(InputError, match="without the turns that are only context; evaluate with --recipe run"):
        api.evaluate("run", source="data/recordings")


def test_a_moved_run_explains_its_utterances_and_reads_no_corpus(elsewhere, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("the corpus is read again")

    monkeypatch.setattr("merhan.data.loading.read_corpus", refuse)
    cli.main(["explain", "run", "--utterance", "demo-test-02-joy-00", "--source", "data/recordings"])
    assert "demo-test-02-joy-00.html" in capsys.readouterr().out


def test_a_run_is_resumed_by_its_own_recipe_from_any_folder(trained, tmp_path, monkeypatch):
    run = trained / "outputs" / "again"
    shutil.copytree(trained / "outputs" / "small", run)
    interrupt(run)
    monkeypatch.chdir(tmp_path)
    cli.main(["train", "--config", str(run / "recipe.yaml"), "--resume"])
    assert weights_of(run) == weights_of(trained / "outputs" / "small")
    assert list(tmp_path.iterdir()) == [], "nothing is started in the working folder"


def test_a_moved_run_is_resumed_where_it_is(elsewhere, trained, monkeypatch):
    monkeypatch.setattr("merhan.data.loading.read_corpus", None)  # what the run recorded is enough
    interrupt(elsewhere / "run")
    with pytest.raises(InputError, match=r"run: .*\.wav: no such recording, as \d+ of \d+; say .* --source"):
        api.train("run/recipe.yaml", resume=True)
    with pytest.raises(InputError, match=r"--resume: the recipe differs from that of .*run in seed; use the same"):
        api.train("run/recipe.yaml", ["seed=3"], resume=True)
    cli.main(["train", "--config", "run/recipe.yaml", "--resume", "--source", "data/recordings"])
    assert weights_of(elsewhere / "run") == weights_of(trained / "outputs" / "small")
    assert metrics_of(elsewhere / "run")["protocol"] == metrics_of(trained / "outputs" / "small")["protocol"]


@pytest.mark.parametrize(
    ("recipe", "changes", "place"),
    [
        ("started.yaml", [], "outputs/small"),
        ("started.yaml", ["output_dir=run"], "run/small"),
        ("run/recipe.yaml", ["run_name=other"], "outputs/other"),
    ],
)
def test_what_is_not_there_is_not_resumed(recipe, changes, place, elsewhere, trained):
    shutil.copy(trained / "recipe.yaml", "started.yaml")
    with pytest.raises(InputError, match=f"^--resume: there is no run in {elsewhere / place}; .*leave out --resume"):
        api.train(recipe, changes, resume=True)
    assert not (elsewhere / place).exists()


def test_moved_recordings_are_named_only_for_a_run_that_recorded_them(elsewhere):
    with pytest.raises(InputError, match=r"--source: is for --resume with the recipe.yaml in the folder of a run"):
        api.train("run/recipe.yaml", source="data")


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/home/me/merhan/train_hf_e2e.py", "python train_hf_e2e.py --config 'my recipe.yaml'"),
        ("/usr/lib/python3/site-packages/merhan/__main__.py", "python -m merhan --config 'my recipe.yaml'"),
        ("/home/me/.venv/bin/merhan", "merhan --config 'my recipe.yaml'"),
    ],
)
def test_a_run_records_a_command_that_can_be_given_again(program, command, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, "--config", "my recipe.yaml"])
    assert run_folder._command() == command


def test_what_every_stage_would_say_is_said_once(tmp_path, caplog, monkeypatch):
    caplog.set_level("WARNING")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments._log_once.cache_clear()
    for _ in range(3):
        arguments.training_arguments(tmp_path, {"bf16": True}, 1, "uar", 0)
    assert [record.message for record in caplog.records].count("no GPU: training in float32 instead of bf16") == 1
