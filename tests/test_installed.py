"""The wheel, built and installed into an empty folder, does everything; and without what only Unix or training has."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_server import running_hub

from merhan.errors import missing_extra


REPOSITORY = Path(__file__).parent.parent
NOT_COPIED = (
    ".venv",
    ".git",
    "outputs",
    "site",
    "__pycache__",
    ".*_cache",
    "build",
    "dist",
    "*.egg-info",
    "tests",
    "docs",
    "notebooks",
)
SMALL = ["data.options={scale: 0.1}", "stages.0.epochs=1", "stages.1.epochs=1", "evaluation.conditions=[]"]
# Modules of Unix alone; and packages that a model needs no more than its users do.
UNIX = ("fcntl", "resource", "pwd", "grp", "termios", "posix_ipc")
TRAINING = ("datasets", "accelerate", "evaluate", "peft", "sklearn", "scipy", "pandas", "omegaconf", "matplotlib")
OURS = ("merhan", "configuration_merhan", "modeling_merhan", "processing_merhan")
# Packages are missing for everyone; what only Unix has, for our code alone, because other packages choose by system.
BLOCK = f"""
import builtins, runpy, sys
blocked, *sys.argv = sys.argv[1:]
blocked = blocked.split(",")
if blocked[0] in {UNIX}:
    unblocked = builtins.__import__
    def refuse(name, variables=None, *rest, **more):
        if name in blocked and (variables or {{}}).get("__name__", "").split(".")[0] in {OURS}:
            raise ModuleNotFoundError(name, name=name)
        return unblocked(name, variables, *rest, **more)
    builtins.__import__ = refuse
else:
    sys.modules.update(dict.fromkeys(blocked))
"""
RUN = BLOCK + "runpy.run_module('merhan', run_name='__main__')"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, unpacked as pip installs it."""
    source, built, site = (tmp_path_factory.mktemp(name) for name in ("source", "built", "site"))
    shutil.copytree(REPOSITORY, source, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", built, source], check=True, capture_output=True)
    (file,) = built.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, file], check=True)
    return site


@pytest.fixture
def environment(wheel, tmp_path) -> dict[str, str]:
    """Variables under which the wheel is imported, and nothing of the user's is read."""
    own = {"PYTHONPATH": str(wheel), "MERHAN_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MERHAN_"))}
    return inherited | own | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def merhan(environment, tmp_path):
    """Run `merhan` in an empty folder; returns what it prints."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*words: str, code: int = 0, blocked: tuple[str, ...] = (), **variables: str) -> str:
        command = [sys.executable, "-m", "merhan"]
        if blocked:
            command = [sys.executable, "-c", RUN, ",".join(blocked), "merhan"]
        process = subprocess.run(
            [*command, *words], cwd=empty, env=environment | variables, capture_output=True, text=True, check=False
        )
        output = process.stdout + process.stderr
        assert process.returncode == code and "Traceback" not in output, output[-4000:]
        return output

    run.folder = empty
    return run


def settings(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def test_a_wheel_in_an_empty_folder_does_everything(merhan, environment):
    where = "import merhan, modeling_merhan, processing_merhan, train_hf_e2e; print(merhan.__file__)"
    command = [sys.executable, "-c", where]
    done = subprocess.run(command, cwd=merhan.folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(environment["PYTHONPATH"]), "the installed package, not the checkout"

    trained = merhan("train", "--config", "merhan:quickstart", *settings(*SMALL))
    assert "model folder: outputs" in trained
    run = merhan.folder / "outputs" / "quickstart"
    assert {"config.json", "README.md", "modeling_merhan.py"} <= {path.name for path in (run / "model").iterdir()}

    merhan("evaluate", "--checkpoint", "outputs/quickstart", "--modalities", "text")
    assert (run / "evaluation" / "test--text" / "metrics.json").is_file()
    utterance = merhan("explain", "outputs/quickstart", "--text", "the dinner was lovely", "--out", "explained")
    assert "explanation.html" in utterance
    audited = merhan("audit", "--config", "merhan:quickstart", *settings(SMALL[0]))
    assert "text" in audited
    refused = merhan(
        "audit", "--config", "merhan:quickstart", *settings(SMALL[0], "data.protocol=emodb7-speaker5"), code=2
    )
    assert "is for emodb" in refused, "the protocol of that name is there"

    clips = merhan.folder / "clips"
    for speaker in ("anna", "ben"):
        for emotion in ("joy", "anger"):
            path = clips / emotion / f"{speaker}_1.wav"
            path.parent.mkdir(exist_ok=True, parents=True)
            soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(9_000), 16_000)
    merhan("prepare", "folder", "clips", "prepared", "--option", "speaker_pattern=(?P<speaker>[a-z]+)_")
    assert list((merhan.folder / "prepared").rglob("manifest.parquet"))

    with running_hub() as hub:
        variables = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        variables["SECRET_OF_MINE"] = "correct-horse-battery-staple"
        published = merhan("publish", "outputs/quickstart", "me/quickstart", **variables)
        assert "loaded back with equal files and equal logits" in published
        _, files = hub.files("me/quickstart")
    private = [variables["SECRET_OF_MINE"], str(merhan.folder), str(Path.home()) + "/", platform.node(), "hf_test"]
    for name, content in files.items():
        assert not [word for word in private if len(word) > 5 and word.encode() in content], name


def test_no_module_of_unix_is_needed(merhan):
    dry = merhan("train", "--config", "merhan:quickstart", "--dry_run", blocked=UNIX)
    assert "quickstart builds and trains" in dry
    assert "usage" in merhan("evaluate", "--help", blocked=UNIX)
    assert "text" in merhan("audit", "--config", "merhan:quickstart", *settings(SMALL[0]), blocked=UNIX)


def test_without_the_extra_a_command_says_what_to_install(merhan):
    assert "usage" in merhan("--help", blocked=TRAINING)
    refused = merhan("train", "--config", "merhan:quickstart", code=2, blocked=TRAINING)
    assert "error: " in refused and "is not installed" in refused and "pip install 'merhan[train]'" in refused


USE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2].split(",")))
import numpy as np
from transformers import pipeline
recogniser = pipeline("emotion-recognition", model=sys.argv[1], trust_remote_code=True, device="cpu")
print(len(recogniser({"array": np.random.randn(16000), "sampling_rate": 16000}, text="no")))
import merhan
try:
    merhan.train
except ImportError as error:
    print(error)
"""


def test_a_model_is_used_without_the_packages_of_training(trained_like, processor, environment, tmp_path):
    trained_like.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-c", USE, str(tmp_path / "model"), ",".join(TRAINING)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("4\nmerhan.train: ") and "pip install 'merhan[train]'" in done.stdout


IMPORTED_AS = {"scikit-learn": "sklearn", "silero-vad": "silero_vad"}  # others have one name for both


def test_every_package_of_an_extra_is_named_with_its_extra():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: [re.split("[>=<\\[]", line)[0] for line in lines]
        for name, lines in project["optional-dependencies"].items()
    }
    assert {"train", "report", "audio", "timeline", "onnx", "space", "dev"} <= set(extras)
    for extra in set(extras) - {"dev"}:
        for package in set(extras[extra]) - {"merhan"}:
            module = IMPORTED_AS.get(package, package)
            sentence = missing_extra(ModuleNotFoundError(module, name=f"{module}.part")) or ""
            named = sentence.partition("pip install 'merhan[")[2].removesuffix("]'")
            assert named == ("train" if extra == "report" else extra), sentence
    assert missing_extra(ModuleNotFoundError("another", name="another")) is None
