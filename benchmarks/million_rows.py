"""Processor time and memory of a large manifest: reading and validating it, splitting, auditing, dialogue context.

python benchmarks/million_rows.py                     a hundred thousand rows, half a minute
python benchmarks/million_rows.py --rows 1000000      a minute

The recordings are not read: their facts are made up, one in a thousand a copy of another.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from common import command, hardware, publish

from merhan.data.audio_facts import BANDS, FACTS, SEGMENTS
from merhan.data.corpora.base import read_corpus
from merhan.data.leaks import audit
from merhan.data.protocols import split
from merhan.names import VOCABULARY
from merhan.reporting.markdown_tables import markdown_table


TURNS = 10  # rows of a dialogue
SPEAKERS = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the manifest (default: 100,000)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        manifest(arguments.rows).to_parquet(arguments.make)
        return
    sizes = [arguments.rows // 10, arguments.rows]
    measured = [measure(size) for size in sizes]
    table = [[name, *(f"{seconds[name]:.1f}" for seconds, _ in measured)] for name in measured[0][0]]
    table.append(["in all", *(f"{sum(seconds.values()):.1f}" for seconds, _ in measured)])
    table.append(["peak memory of the audits, GiB", *(f"{memory:.2f}" for _, memory in measured)])
    text = f"""`{command()}`

Seconds of processor time, {hardware()}. Made-up rows in dialogues of {TURNS} turns, {SPEAKERS} speakers; one recording
in a thousand is a copy of another. Of the memory, 0.8 GiB are the imported libraries.

{markdown_table(["", *(f"{size:,} rows" for size in sizes)], table)}
"""
    publish("million-rows", text, arguments.write)


def measure(size: int) -> tuple[dict[str, float], float]:
    """Processor seconds by step, and the peak memory of all but the last one in GiB."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str):
        start = time.process_time()
        yield
        seconds[name] = time.process_time() - start
        print(f"{size:,} rows, {name}: {seconds[name]:.1f} s, peak {peak_gib():.1f} GiB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        # In a process of its own, whose memory does not count.
        subprocess.run([sys.executable, __file__, "--rows", str(size), "--make", path], check=True)
        with timed("read and validate"):
            rows = read_corpus("manifest", str(path)).rows
    with timed("split"):
        rows = split(rows, "loso:session", 0).rows
    facts = recordings(size)
    with timed("audit of the table"):
        leaks = audit(rows, ["audio", "text"])
    with timed("audit of the recordings"):
        copies = audit(rows, ["audio"], facts)
    memory = peak_gib()
    del facts
    assert any(leak.kind == "text" for leak in leaks) and any(leak.kind == "audio" for leak in copies)
    from merhan.data.dataset import dialogue_context  # here, because the audits do not need what it imports

    with timed("dialogue context"):
        contexts = dialogue_context(rows, 3)
    assert len(contexts) == size
    return seconds, memory


def peak_gib() -> float:
    """Peak memory of this process so far, the imports included (0.8 GiB before the first row)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def manifest(size: int) -> pd.DataFrame:
    """Rows in dialogues; one sentence in three occurs more than once."""
    rng = np.random.default_rng(0)
    numbers = np.arange(size)
    words = np.array([f"word{number}" for number in range(2000)])
    sentences = [" ".join(row) for row in words[rng.integers(0, len(words), (size, 8))]]
    repeated = rng.random(size) < 0.3
    texts = np.where(repeated, np.array(sentences)[rng.integers(0, max(size // 100, 1), size)], sentences)
    dialogues = numbers // TURNS
    speakers = dialogues % SPEAKERS
    return pd.DataFrame(
        {
            "utterance_id": [f"utterance {number}" for number in numbers],
            "corpus": "made up",
            "audio": [f"/data/clips/{number}.wav" for number in numbers],
            "text": texts,
            "label": rng.choice(list(VOCABULARY), size),
            "speaker": [f"speaker {number}" for number in speakers],
            "session": [f"session {number}" for number in speakers % 10],
            "dialogue": [f"dialogue {number}" for number in dialogues],
            "turn": numbers % TURNS,
            "start": np.nan,
            "end": np.nan,
            "duration": rng.lognormal(0.9, 0.7, size),
        }
    )


def recordings(size: int) -> np.ndarray:
    """Facts of recordings with the likeness of speech: fingerprints that share a few dozen patterns."""
    rng = np.random.default_rng(1)
    facts = np.zeros(size, FACTS)
    facts["duration"] = rng.lognormal(0.9, 0.7, size)
    facts["sampling_rate"], facts["channels"], facts["peak"], facts["level"] = 16_000, 1, 0.5, -20.0
    patterns = rng.normal(size=(30, BANDS * SEGMENTS))
    for number in range(size):
        vector = rng.normal(size=30) @ patterns + 2 * rng.normal(size=BANDS * SEGMENTS)
        facts["digest"][number] = str(number)
        facts["fingerprint"][number] = (127 * vector / np.abs(vector).max()).round()
        if number % 1000 == 999:
            original = int(rng.integers(0, number))
            for name in ("fingerprint", "duration"):
                facts[name][number] = facts[name][original]
    return facts


if __name__ == "__main__":
    main()
