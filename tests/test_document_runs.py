"""Every command and every Python block of README.md and docs/ is run as it stands there, page by page."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import document_runner
import pytest
import yaml
from documents import DOCUMENTS, NOT_RUN, PROJECT, blocks_of, commands, commands_of, why_not_run
from hub_server import running_hub
from tiny_whisper import tiny_whisper

from merhan.models.tiny_backbones import tiny_audio, tiny_text


def recogniser() -> Path:
    return tiny_whisper(Path(tempfile.mkdtemp()))


# The names of the documents -> the checkpoints that the Hub of these tests has under them.
BACKBONES = {
    "facebook/wav2vec2-base": lambda: tiny_audio("wav2vec2"),
    "FacebookAI/roberta-base": lambda: tiny_text(["I cannot believe it! No.", "the dinner was lovely"]),
    "openai/whisper-base": recogniser,
    "openai/whisper-base.en": recogniser,
}


def has_something_to_run(document: Path) -> bool:
    """Whether a page has Python, a recipe, or a command that can be run here."""
    return any(
        block.language in ("python", "yaml")
        or (block.language == "bash" and not all(map(why_not_run, commands_of(block))))
        for block in blocks_of(document)
    )


PAGES = [page for page in DOCUMENTS if "reference" not in page.parts and has_something_to_run(page)]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A checkout whose quickstart is a tenth of its size, after `make quickstart`."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(PROJECT / "configs", folder / "configs")
    for script in ("train_hf_e2e.py", "evaluate_hf_e2e.py"):
        shutil.copy(PROJECT / script, folder)
    file = folder / "configs" / "quickstart.yaml"
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    recipe["data"]["options"] = {"scale": 0.1}
    recipe["stages"] = [{**stage, "epochs": 1} for stage in recipe["stages"]]
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    run([sys.executable, "train_hf_e2e.py", "--config", "configs/quickstart.yaml"], folder)
    return folder


@pytest.fixture
def hub():
    """A Hub that has the backbones of the documents."""
    with running_hub() as server:
        for name, make in BACKBONES.items():
            server.commits[name] = []
            server.commit(name, {file.name: file.read_bytes() for file in make().iterdir()})
        yield server


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Run a program in a folder, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MERHAN_"))}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])}
    own |= {name: str(folder / "caches" / name) for name in ("HF_HOME", "MERHAN_CACHE")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # accelerate is there
    done = subprocess.run(
        command,
        cwd=folder,
        env=inherited | own | {"PATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def run_page(page: Path, checkout: Path, hub, folder: Path) -> str:
    """Run a page in a copy of the checkout."""
    shutil.copytree(checkout, folder, dirs_exist_ok=True)
    runner = str(Path(document_runner.__file__))
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1"}
    variables |= {"MERHAN_CORPORA": str(folder / "data")}
    return run([sys.executable, runner, str(page.relative_to(PROJECT))], folder, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_page(page, checkout, hub, tmp_path):
    printed = run_page(page, checkout, hub, tmp_path)
    print(printed)
    assert printed.count(f"--- {page.relative_to(PROJECT).as_posix()}#") == len(list(blocks_of(page)))


def test_every_exception_is_still_in_the_documents():
    lines = [" ".join(words) for _, words in commands()]
    unused = [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in lines)]
    assert unused == []
    assert sum(not why_not_run(words) for _, words in commands()) > 35
