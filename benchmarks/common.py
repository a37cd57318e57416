"""What the benchmarks share: the name of the hardware, and the sections of RESULTS.md."""

import os
import platform
import shlex
import sys
from pathlib import Path

import torch


REPOSITORY = Path(__file__).parent.parent
RESULTS = REPOSITORY / "RESULTS.md"


def hardware() -> str:
    """`2 CPU cores (x86_64)`, or the GPU's name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def command(**hidden: str) -> str:
    """The command that is running, with the given paths of this machine replaced by variables."""
    words = shlex.join(["python", Path(sys.argv[0]).as_posix(), *sys.argv[1:]])
    for shown, path in hidden.items():
        words = words.replace(path, f"${shown}")
    return words.replace(f"{REPOSITORY.as_posix()}/", "").replace(" --write", "")


def publish(name: str, text: str, write: bool, path: Path = RESULTS):
    """Print a section, and put it between its marks in RESULTS.md, or another page, if asked."""
    print(text)
    if not write:
        return
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = path.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        sys.exit(f"error: {path.name} has no section {name!r}; add the lines {begin} and {end}.")
    before, rest = page.split(begin)
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}", encoding="utf-8")
