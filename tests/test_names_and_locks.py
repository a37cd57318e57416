"""Names that become paths stay within their folder, and two runs never share one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from merhan import api
from merhan.errors import InputError
from merhan.files import file_name, locked
from merhan.recipe.loading import load_recipe
from merhan.training.run_folder import run_folder


RECIPE = """
run_name: small
output_dir: {folder}/outputs
data: {{corpus: demo, source: {folder}/demo, options: {{scale: 0.1}}, accept_leaks: [text]}}
model: {{text_backbone: tiny}}
stages: [{{name: warmup, epochs: 1, learning_rate: {{head: 1.0e-3}}}}]
"""
NO_FOLDER_NAMES = [
    "",
    ".",
    "..",
    "...",
    "a/b",
    "../a",
    "/a",
    "a\\b",
    "C:\\a",
    "a:b",
    "a\nb",
    "a\0b",
    "a*",
    "a?",
    "a.",
]
NO_FOLDER_NAMES += ["a ", '"', "a|b", "<a>", "nul", "COM1.txt", "x" * 101]


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", NO_FOLDER_NAMES)
@pytest.mark.parametrize("key", ["run_name", "stages.0.name"])
def test_a_name_that_is_not_of_one_folder_is_refused(key, name, tmp_path):
    text = RECIPE.format(folder=tmp_path)
    old = "run_name: small" if key == "run_name" else "name: warmup"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\0", "\\0")
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(old, f'{old.split(":")[0]}: "{quoted}"'), encoding="utf-8")
    with pytest.raises(InputError, match=r"run_name|stages\[0\].name"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["model", "Evaluation", "tensorboard", "recipe.yaml"])
def test_a_stage_cannot_have_the_name_of_what_a_run_holds(name, recipe):
    with pytest.raises(InputError, match=r"stages\[0\].name is .* which a run's folder holds already"):
        load_recipe(recipe, [f"stages.0.name={name}"])


def test_stages_whose_names_differ_in_case_alone_are_refused(recipe):
    second = "stages=[{name: a, epochs: 1, learning_rate: {head: 1}}, {name: A, epochs: 1, learning_rate: {head: 1}}]"
    with pytest.raises(InputError, match="is the name of several stages"):
        load_recipe(recipe, [second])


@pytest.mark.parametrize("name", ["small", "Größe-2", "fold 1, seed 0", "a.b_c+d"])
def test_ordinary_names_are_taken(name, recipe):
    assert load_recipe(recipe, [f'run_name="{name}"']).run_name == name


def test_different_utterances_have_files_of_different_names():
    names = ["a/b", "a-b", "a\\b", "a b", "..", ".", "../x", "a", "A:b", "ä", "/etc/passwd", "x" * 300, "x" * 301]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(Path(name).name == name and not name.startswith(".") and len(name) < 150 for name in files)
    assert file_name("dia3_utt5.wav") == "dia3_utt5.wav"


HOLD = "import sys\nfrom pathlib import Path\nfrom merhan.files import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"


def test_a_run_in_use_is_refused_until_its_process_ends_however_it_does(recipe):
    folder = run_folder(load_recipe(recipe))
    path = os.pathsep.join([str(Path(api.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        for options in ({}, {"overwrite": True}):
            with pytest.raises(InputError, match=f"small: is in use by process {process.pid} on .* since 20"):
                api.train(recipe, **options)
        process.kill()
    with locked(folder):
        assert not folder.exists()


def test_a_training_holds_its_folder(recipe, monkeypatch):
    def train_stages(*_):
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
            api.train(recipe, resume=True)

    monkeypatch.setattr(api, "_train_stages", train_stages)
    with locked(api.train(recipe)):
        pass


def test_recipes_of_the_package_have_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MERHAN_CORPORA", "corpora")
    assert load_recipe("merhan:quickstart").run_name == "quickstart"
    path = tmp_path / "own.yaml"
    path.write_text("base: merhan:meld\nrun_name: own\n", encoding="utf-8")
    assert load_recipe(path).data.corpus == "meld"
    with pytest.raises(InputError, match="merhan:quikstart: the package has no recipe of this name; did you mean"):
        load_recipe("merhan:quikstart")
    for name in ("merhan:../pyproject", "merhan:", "merhan:/etc/passwd"):
        with pytest.raises(InputError, match="the package has no recipe of this name"):
            load_recipe(name)


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")])
def test_a_disk_without_locks_is_one_sentence(tmp_path, monkeypatch, error):
    def acquire(*args, **kwargs):
        raise error

    monkeypatch.setattr("merhan.files.FileLock.acquire", acquire)
    words = "run: its disk keeps no locks.*; choose a folder on another disk"
    with pytest.raises(InputError, match=words), locked(tmp_path / "run"):
        pass


def test_other_errors_of_a_lock_stay_what_they_are(tmp_path, monkeypatch):
    def acquire(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr("merhan.files.FileLock.acquire", acquire)
    with pytest.raises(PermissionError), locked(tmp_path / "run"):
        pass
