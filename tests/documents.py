"""The code blocks of the documents, and which of their commands cannot be run by a test."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


PROJECT = Path(__file__).parent.parent
DOCUMENTS = sorted([*PROJECT.glob("*.md"), PROJECT / "benchmarks" / "README.md", *(PROJECT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Commands that are checked by their parsers alone (test_documents.py) -> why they are not run (test_document_runs.py).
NOT_RUN = {
    r"make ": "sets up an environment from the package registry; CI runs `make test`, `make lint` and `make docs`",
    r"pip |pre-commit |python -m venv |\. \.venv": "installs packages",
    r"merhan space": "serves a page until it is stopped; tests/test_space.py opens it in a browser",
    r"python -m pytest": "runs the tests themselves",
    r".*--config_file configs/accelerate/": "needs several GPUs",
    r".*accelerate launch --multi_gpu": "needs several GPUs",
    r"(?!.*--dry_run).*/data/(MELD|emodb|corpora)": "needs the recordings of a corpus",
    r"(?!.*--dry_run).*(prepared/meld|outputs/meld|configs/experiments/emodb)": "needs what a corpus was made into",
}
# Packages that nothing here needs, and that a page uses; document_runner.py has a stand-in.
STOOD_IN = {"funasr"}


class Block(NamedTuple):
    """A block of code in a document."""

    place: str  # file and number of the block
    language: str  # empty for none
    text: str


def blocks_of(document: Path) -> Iterator[Block]:
    """The blocks of a document in their order."""
    for number, match in enumerate(_BLOCK.finditer(document.read_text(encoding="utf-8"))):
        yield Block(f"{document.relative_to(PROJECT).as_posix()}#{number}", match[2], match[3])


def blocks(language: str) -> list[Block]:
    """All blocks of one language."""
    return [block for document in DOCUMENTS for block in blocks_of(document) if block.language == language]


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command line in a bash block, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if words:
                yield words


def commands() -> Iterator[tuple[str, list[str]]]:
    """The words of every command line in a bash block, with its place."""
    for block in blocks("bash"):
        for words in commands_of(block):
            yield block.place, words


def why_not_run(words: list[str]) -> str:
    """The reason for which a test does not run a command; empty for one that is run."""
    line = shlex.join(words)
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, line)), "")
