"""Runs the blocks of a document one after another in the current folder, as a reader would:

    python tests/document_runner.py README.md

in one process, because importing torch takes longer than most commands. Tables and recipes that the page shows are
written to files when their turn comes. Everything that stands in for what a reader has is in this file.
"""

import csv
import io
import itertools
import re
import runpy
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import yaml
from documents import PROJECT, Block, blocks_of, commands_of, why_not_run

from merhan.cli.main import main
from merhan.data.corpora.demo_corpus import say, speak


# What stands in a command -> what is run.
STAND_INS = {
    "/data/": "data/",  # raw releases, here synthetic
    "demo-test-02-joy-03": "demo-test-02-joy-00",  # the corpus of these runs is a tenth of quickstart's
}
# The recipe that a block shows -> the file that the page calls it.
RECIPES = {"mine": "mine.yaml", "mine-fold${data.fold}": "mine.yaml", "emotion2vec-table": "emotion2vec.yaml"}
SPEAKERS = {"anna": 210.0, "ben": 110.0, "cara": 190.0, "dan": 125.0}  # mean pitch in Hz
FEELINGS = {"surprised": ("aroused", "positive"), "happy": ("quiet", "positive"), "unsure": ("quiet", "negative")}
SPLITS = {"anna": "train", "ben": "train", "cara": "validation", "dan": "test"}
PLACEHOLDERS = {
    "paths": ["a.wav", "b.flac"],
    "rows": [
        {"audio": "a.wav", "text": "Oh!", "label": 0},
        {"audio": "b.flac", "text": None, "label": 1},
        {"audio": None, "text": "No.", "label": 2},
    ],
}


class EmotionVectors:
    """In place of `funasr.AutoModel` for emotion2vec: the same files, with other numbers."""

    def __init__(self, model: str, hub: str):
        assert (model, hub) == ("iic/emotion2vec_plus_large", "hf")

    def generate(self, source: str, output_dir: str, granularity: str, extract_embedding: bool):
        """A file `<name>.npy` of 1024 float32 for each line `name path`."""
        assert granularity == "utterance" and extract_embedding
        Path(output_dir).mkdir(exist_ok=True)
        for number, line in enumerate(Path(source).read_text(encoding="utf-8").splitlines()):
            name, path = line.split(maxsplit=1)
            assert soundfile.info(path).samplerate == 16_000
            vector = np.random.default_rng(number).standard_normal(1024)
            np.save(Path(output_dir, f"{name}.npy"), vector.astype(np.float32))


class Microphone:
    """In place of `sounddevice.InputStream`: somebody speaks all the time."""

    def __init__(self, samplerate: int, channels: int, dtype: str, blocksize: int):
        assert (samplerate, channels, dtype) == (16_000, 1, "float32")
        self.sound = itertools.cycle(speak(np.random.default_rng(0), 150.0, 3.0, "aroused"))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def read(self, frames: int) -> tuple[np.ndarray, bool]:
        """`(frames, 1)`, and whether samples were lost."""
        return np.fromiter(self.sound, np.float32, frames)[:, None], False


def lay_out():
    """What the pages presuppose: recordings, and tables without labels."""
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.flac", "calls/one.wav", "calls/two.wav"):
        record(Path(name), rng, 150.0, "aroused")
    pieces = [np.concatenate([speak(rng, 120.0, 1.0, "quiet"), np.zeros(16_000)]) for _ in range(4)]
    soundfile.write("call.wav", np.concatenate(pieces), 16_000)
    soundfile.write("stereo.wav", np.stack([np.concatenate(pieces), np.concatenate(pieces[::-1])], axis=1), 16_000)
    Path("call.rttm").write_text("SPEAKER call 1 0 60 <NA> <NA> Ann <NA> <NA>\n", encoding="utf-8")
    for (speaker, pitch), label, take in itertools.product(SPEAKERS.items(), ("joy", "sadness"), "12"):
        manner = {"joy": "aroused", "sadness": "quiet"}[label]
        record(Path(f"clips/{label}/{speaker}_0{take}.wav"), rng, pitch, manner)
    utterances = pd.DataFrame({"audio": ["a.wav", "b.flac", ""], "text": ["Oh!", "", "No, thank you."]})
    for table in ("utterances.csv", "more-clips.csv", "more.csv"):
        utterances.to_csv(table, index=False)
    utterances.rename(columns={"audio": "path", "text": "words"}).to_csv("corpus.csv", index=False)
    Path("shards").mkdir()
    for number in range(4):
        utterances.assign(audio="../a.wav").to_parquet(f"shards/{number}.parquet")
    labels = {"utterance_id": ["1", "2"], "corpus": "other", "label": ["joy", "sadness"], "split": "test"}
    pd.DataFrame({**labels, "audio": ["a.wav", "b.flac"], "text": ["Oh!", ""]}).to_parquet("other-corpus.parquet")


def record(path: Path, rng: np.random.Generator, pitch: float, manner: str):
    """Write a recording of the synthetic voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speak(rng, pitch, 1.0, manner), 16_000)


def write_table(block: Block):
    """`clips.csv` with the row that the page shows, and more like it."""
    shown = list(csv.DictReader(io.StringIO(block.text)))
    rng = np.random.default_rng(1)
    columns: dict[str, list[Any]] = {name: [row[name] for row in shown] for name in shown[0]}
    record(Path(columns["file"][0]), rng, 200.0, "aroused")
    for number, (speaker, feeling) in enumerate([*itertools.product(SPEAKERS, FEELINGS)] * 2, 2):
        manner, valence = FEELINGS[feeling]
        path = f"clips/{number:04d}.wav"
        record(Path(path), rng, SPEAKERS[speaker], manner)
        row = {"file": path, "words": say(rng, valence), "feeling": feeling, "who": speaker, "part": SPLITS[speaker]}
        for name, cells in columns.items():
            cells.append(row[name])
    pd.DataFrame(columns).to_csv("clips.csv", index=False)


def write_recipe(block: Block):
    """A recipe or experiment under the name that the page calls it; a recipe is tried as far as `--dry_run` can."""
    content = yaml.safe_load(block.text)
    if "rows" in content:
        Path(f"{content['name']}.yaml").write_text(block.text, encoding="utf-8")
        return
    file = RECIPES.get(content["run_name"], "shown.yaml")
    Path(file).write_text(block.text, encoding="utf-8")
    if file == "shown.yaml":
        run_command(["merhan", "train", "--config", file, "--dry_run"])


def run_command(words: list[str]):
    """Run a command line; AssertionError unless it ends well and has written what `--out` names."""
    for shown, stand_in in STAND_INS.items():
        words = [word.replace(shown, stand_in) for word in words]
    for word in words:
        stand_in_for_run(Path(word))
        if word == "data/RAVDESS":
            make_ravdess(Path(word))
    programs = {"merhan": lambda: main(words[1:]), "python": lambda: run_script(words[1:])}
    try:
        programs.get(words[0], lambda: subprocess.run(words, check=True))()
    except SystemExit as ended:
        assert not ended.code, f"exit code {ended.code}"
    if "--out" in words:
        files = list(itertools.takewhile(lambda word: not word.startswith("-"), words[words.index("--out") + 1 :]))
        assert [file for file in files if not Path(file).exists()] == [], "what --out names was not written"


def make_ravdess(folder: Path):
    """The names of RAVDESS, speech, over noise: 24 actors with 60 recordings each."""
    rng = np.random.default_rng(0)
    for actor, emotion, intensity, sentence, take in itertools.product(range(1, 25), range(1, 9), "12", "12", "12"):
        if (emotion, intensity) != (1, "2"):  # neutral has no strong intensity
            name = f"03-01-{emotion:02d}-0{intensity}-0{sentence}-0{take}-{actor:02d}.wav"
            path = folder / f"Actor_{actor:02d}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(8_000), 16_000)
    folder.with_name("ravdess").symlink_to(folder.name)  # $MERHAN_CORPORA has it under the name of its reader


def run_script(words: list[str]):
    """Run a program of the checkout."""
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def stand_in_for_run(folder: Path):
    """For `outputs/<name>` that the page did not make: a copy of a run, of the page's own if it made one."""
    if folder.parts[:1] == ("outputs",) and len(folder.parts) == 2 and not folder.exists():
        runs = [Path("outputs", name) for name in ("mine", "quickstart")]
        shutil.copytree(next(run for run in runs if run.is_dir()), folder)


def run_blocks(document: Path):
    """Run the blocks of a document; the first that fails ends the program, and its place is the last line printed."""
    names: dict[str, Any] = dict(PLACEHOLDERS)
    sys.modules["sounddevice"] = types.SimpleNamespace(InputStream=Microphone)  # type: ignore[assignment]
    sys.modules["funasr"] = types.SimpleNamespace(AutoModel=EmotionVectors)  # type: ignore[assignment]
    for block in blocks_of(document):
        print(f"--- {block.place}", flush=True)
        if block.language == "python":
            for run in re.findall(r"outputs/[\w-]+", block.text):
                stand_in_for_run(Path(run))
            exec(compile(block.text, block.place, "exec"), names)
        elif block.language == "bash":
            for words in commands_of(block):
                if not why_not_run(words):
                    begun = time.monotonic()
                    run_command(words)
                    print(f"    {time.monotonic() - begun:.1f} s: {' '.join(words)}", flush=True)
        elif block.language == "yaml":
            write_recipe(block)
        elif block.text.startswith("file,"):
            write_table(block)


if __name__ == "__main__":
    lay_out()
    run_blocks(PROJECT / sys.argv[1])
