"""Damaged releases of corpora, tables and recipes: each is read, or refused by one sentence, soon.

python tests/test_input_fuzz.py cremad 17     what came of one seed, with its traceback
"""

import functools
import importlib
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzzing import GOOD, change_bytes, change_text, run
from releases import iemocap, tiny_sounds

from merhan.data.corpora.base import read_corpus
from merhan.errors import InputError
from merhan.files import PROJECT
from merhan.recipe.loading import load_recipe


SOUND = (".wav", ".flac", ".mp3", ".mp4", ".m4a", ".sph")
ROWS = pd.DataFrame(
    {
        "audio": ["a.wav", "b.wav", "c.wav", ""],
        "text": ["Oh!", "No, never.", "nothing", "ä"],
        "label": ["joy", "anger", "sadness", "neutral"],
        "speaker": ["s1", "s1", "s2", "s2"],
        "dialogue": ["d", "d", "e", "e"],
        "turn": [1, 2, 1, 2],
        "start": [0.0, 0.01, 0.0, None],
        "end": [0.05, None, 0.1, None],
        "valence": [1.5, 4.0, 3.25, None],
        "split": ["train", "train", "validation", "test"],
    }
)

MANIFEST = ROWS.assign(utterance_id=["u1", "u2", "u3", "u4"], corpus="mine", source_label=ROWS["label"], language="en")


def _table(ending: str, write: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(where: Path) -> Path:
        where.mkdir(exist_ok=True)
        tiny_sounds.write_all(where / name for name in ("a.wav", "b.wav", "c.wav"))
        write(where / f"rows{ending}")
        return where / f"rows{ending}"

    return make


def _meld(where: Path) -> Path:
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    line = '{},"It\u2019s {}, \u201cokay\u201d",Ross,{},neutral,{},{},1,1,"00:00:01,000","00:00:02,000"\r\n'
    where.mkdir(exist_ok=True)
    for table in ("train", "dev", "test"):
        lines = [line.format(turn, turn, emotion, 1, turn) for turn, emotion in enumerate(("joy", "anger", "fear"))]
        (where / f"{table}_sent_emo.csv").write_text(header + "".join(lines), encoding="utf-8")
    return where


def _names(*paths: str) -> Callable[[Path], Path]:
    def make(where: Path) -> Path:
        tiny_sounds.write_all(where / path for path in paths)
        return where

    return make


def _iemocap(where: Path) -> Path:
    """One dialogue of each session."""
    source = iemocap.make(where)
    for session in source.glob("Session*"):
        labels = sorted((session / "dialog" / "EmoEvaluation").glob("*.txt"))
        for path in labels[1:]:
            for other in session.rglob(f"{path.stem}*"):
                shutil.rmtree(other) if other.is_dir() else other.unlink(missing_ok=True)
    return source


def _release(name: str) -> Callable[[Path], Path]:
    return importlib.import_module(f"releases.{name}").make


# What is fuzzed -> the reader, and what makes its input.
READERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    **{name: (name, _release(name)) for name in ("cremad", "emovdb", "esd", "folder", "mead", "mosei", "msp_improv")},
    **{name: (name, _release(name)) for name in ("msp_podcast", "nemo", "savee", "tess")},
    "iemocap": ("iemocap", _iemocap),
    "meld": ("meld", _meld),
    "emodb": ("emodb", _names("wav/03a01Fa.wav", "wav/03a01Nc.wav", "wav/16b10Wb.wav")),
    "ravdess": ("ravdess", _names("Actor_01/03-01-01-01-01-01-01.wav", "Actor_02/03-01-05-02-02-02-02.wav")),
    "csv": ("table", _table(".csv", lambda path: ROWS.to_csv(path, index=False))),
    "tsv": ("table", _table(".tsv", lambda path: ROWS.to_csv(path, index=False, sep="\t"))),
    "jsonl": ("table", _table(".jsonl", lambda path: ROWS.to_json(path, orient="records", lines=True))),
    "xlsx": ("table", _table(".xlsx", lambda path: ROWS.to_excel(path, index=False))),
    "parquet": ("table", _table(".parquet", lambda path: ROWS.to_parquet(path, index=False))),
    "manifest": ("manifest", _table(".jsonl", lambda path: MANIFEST.to_json(path, orient="records", lines=True))),
    "datasets": ("datasets", _table(".parquet", lambda path: ROWS.to_parquet(path, index=False))),
}


class Release:
    """A release that is damaged in place, and restored."""

    def __init__(self, source: Path, root: Path):
        self.source, self.root = source, root
        self.backup = root.with_name("backup")
        shutil.copytree(root, self.backup)
        files = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
        self.sounds = [path for path in files if path.suffix.lower() in SOUND]
        self.tables = [path for path in files if path.suffix.lower() not in SOUND]

    def damage(self, rng: np.random.Generator) -> list[Path]:
        """Change one to three files; returns their paths."""
        changed = []
        for _ in range(rng.integers(1, 4)):
            is_sound = not self.tables or (self.sounds and rng.random() < 0.2)
            group = self.sounds if is_sound else self.tables
            path = self.root / group[rng.integers(len(group))]
            if path.is_file():
                changed += [path, *_changed_file(path, rng, is_sound)]
        return changed

    def restore(self, changed: list[Path]):
        for path in changed:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            original = self.backup / path.relative_to(self.root)
            if original.is_file():
                shutil.copy(original, path)


def _changed_file(path: Path, rng: np.random.Generator, is_sound: bool) -> list[Path]:
    """Change one file; returns the paths that are new."""
    kind = rng.choice(["bytes", "text", "remove", "rename", "empty", "folder"], p=[0.35, 0.4, 0.07, 0.1, 0.04, 0.04])
    if is_sound and kind in ("bytes", "text"):
        kind = "rename"
    if kind == "rename":
        name = change_text(path.name.encode(), rng).decode("utf-8", "replace")[:80]
        name = name.translate(str.maketrans("/\0\n", "---"))
        target = path.with_name(name if name.strip(".") else "odd")
        if not target.exists():
            path.rename(target)
            return [target]
    elif kind in ("remove", "folder"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
    else:
        change = {"bytes": change_bytes, "text": change_text, "empty": lambda *_: b""}[kind]
        path.write_bytes(change(path.read_bytes(), rng))
    return []


@functools.cache
def release(name: str) -> Release:
    root = Path(tempfile.mkdtemp()) / "release"
    root.mkdir()
    source = READERS[name][1](root / "x")
    return Release(source, root)


def reader_outcome(name: str, seed: int) -> str:
    """What the reader makes of a damaged release."""
    damaged = release(name)
    changed = damaged.damage(np.random.default_rng(seed))
    try:
        return outcome_of(lambda: read_corpus(READERS[name][0], damaged.source))
    finally:
        damaged.restore(changed)


RECIPES = tuple(sorted((PROJECT / "configs").glob("*.yaml")))


@functools.cache
def recipe_folder() -> Path:
    """A copy of the recipes, with which a damaged one may be based on others."""
    return Path(shutil.copytree(PROJECT / "configs", Path(tempfile.mkdtemp()) / "configs"))


def recipe_outcome(seed: int) -> str:
    """What the loader makes of a damaged recipe."""
    rng = np.random.default_rng(seed)
    content = RECIPES[seed % len(RECIPES)].read_bytes()
    for _ in range(rng.integers(1, 3)):
        content = (change_bytes if rng.random() < 0.3 else change_text)(content, rng)
    path = recipe_folder() / f"damaged{os.getpid()}.yaml"
    path.write_bytes(content)
    return outcome_of(lambda: load_recipe(path))


def outcome_of(work: Callable[[], object]) -> str:
    """`accepted`, `refused`, or what went wrong."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except InputError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        if os.environ.get("FUZZ_RAISES"):
            raise
        return f"{type(error).__name__}: {error}"
    return "accepted"


@pytest.fixture(autouse=True)
def no_logs(monkeypatch):
    monkeypatch.setenv("MERHAN_CORPORA", "corpora")  # the recipes refer to it
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", READERS)
def test_damaged_releases_are_read_or_refused(name):
    outcomes = {seed: reader_outcome(name, seed) for seed in range(5)}
    assert set(outcomes.values()) <= set(GOOD), outcomes


def test_damaged_recipes_are_loaded_or_refused():
    assert run(recipe_outcome, range(100)).failures == []


# Seeds that once were tracebacks: an unknown user's home, a folder in place of a file, a table that is empty, not in
# UTF-8, ragged or without a column, a broken zip, messages of several lines.
FAILED_ONCE = [("tsv", 65), ("iemocap", 5), ("xlsx", 1), ("parquet", 2), ("nemo", 12), ("jsonl", 347)]
FAILED_ONCE += [("cremad", 242), ("meld", 334)]


@pytest.mark.parametrize(("name", "seed"), FAILED_ONCE)
def test_what_failed_once(name, seed):
    assert reader_outcome(name, seed) in GOOD


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_releases_are_read_or_refused(name):
    assert run(functools.partial(reader_outcome, name), range(1000, 1500), processes=2, chunk=50).failures == []


@pytest.mark.slow
def test_many_damaged_recipes_are_loaded_or_refused():
    assert run(recipe_outcome, range(1000, 11_000), processes=2).failures == []


if __name__ == "__main__":
    os.environ |= {"FUZZ_RAISES": "1", "MERHAN_CORPORA": "corpora"}
    kind, seed = sys.argv[1], int(sys.argv[2])
    print(recipe_outcome(seed) if kind == "recipe" else reader_outcome(kind, seed))
