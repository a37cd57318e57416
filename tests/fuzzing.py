"""What the fuzz tests share: changes of bytes and of text, and running many seeds in processes of their own."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NamedTuple

import numpy as np


SECONDS = 5.0  # that one input may take
MEMORY = 12 * 2**30  # of address space, of which torch has reserved most
GOOD = ("accepted", "refused")
ODD = ("", "nan", "-1", "0", "1e999", "ä", "\x00", "\ufeff", "None", "[]", "{a: 1}", "!!python/object:x {}", "&a", "*a")
ODD += ("'", '"', ":", ",", ";", "\t", "..", "/", "~", "${oc.env:HOME}", "${x}", "9" * 400, "x" * 5000, "true", "\\")


class Result(NamedTuple):
    """What came of many seeds."""

    counts: Counter  # of `accepted` and `refused`
    failures: list[tuple[int, str]]  # seed and what went wrong


def change_bytes(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """Some changes of bytes, most of them near begin or end, where headers are.

    Args:
        others: contents of which a part may be spliced in.
    """
    changed = bytearray(content)
    weights = (0.4, 0.35, 0.05, 0.08, 0.08, 0.04)
    for change in rng.choice((_flip, _number, _cut, _delete, _repeat, _splice), size=rng.integers(1, 6), p=weights):
        if not changed:
            continue
        place = _place(rng, len(changed))
        if change is not _splice:
            change(changed, place, rng)
        elif others:
            other = others[rng.integers(len(others))]
            changed[place:] = other[_place(rng, len(other)) :]
    return bytes(changed)


def _place(rng: np.random.Generator, size: int) -> int:
    share = rng.random() ** rng.choice([1, 4, 12])
    return int((share if rng.random() < 0.85 else 1 - share) * (size - 1))


def _flip(content: bytearray, place: int, rng: np.random.Generator):
    content[place] ^= 1 << rng.integers(8)


def _number(content: bytearray, place: int, rng: np.random.Generator):
    """A number that is often a bound."""
    width = int(rng.choice([1, 2, 4, 8]))
    values = [0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1]
    values.append(int(rng.integers(2**63)) % 2 ** (8 * width))
    value = values[rng.integers(len(values))]
    content[place : place + width] = value.to_bytes(width, ["little", "big"][rng.integers(2)])


def _cut(content: bytearray, place: int, rng: np.random.Generator):
    del content[place:]


def _delete(content: bytearray, place: int, rng: np.random.Generator):
    del content[place : place + rng.integers(1, 64)]


def _repeat(content: bytearray, place: int, rng: np.random.Generator):
    content[place:place] = content[place : place + rng.integers(1, 64)]


def _splice(content: bytearray, place: int, rng: np.random.Generator):
    """The end of another content; see [`change_bytes`]."""


def change_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Lines dropped, repeated, exchanged or indented, and words and fields replaced by odd ones."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    changes = (_drop_line, _repeat_line, _exchange_lines, _indent, _replace_word)
    for change in rng.choice(changes, size=rng.integers(1, 4)):
        change(lines, int(rng.integers(len(lines))), rng)
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _drop_line(lines: list[str], place: int, rng: np.random.Generator):
    del lines[place]


def _repeat_line(lines: list[str], place: int, rng: np.random.Generator):
    lines.insert(int(rng.integers(len(lines))), lines[place])


def _exchange_lines(lines: list[str], place: int, rng: np.random.Generator):
    other = int(rng.integers(len(lines)))
    lines[place], lines[other] = lines[other], lines[place]


def _indent(lines: list[str], place: int, rng: np.random.Generator):
    lines[place] = " " * int(rng.integers(1, 5)) + lines[place]


def _replace_word(lines: list[str], place: int, rng: np.random.Generator):
    """One of the parts between blanks and separators becomes an odd value."""
    for separator in rng.permutation([" ", ",", ";", "\t", ":", "|", "_", "."]):
        parts = lines[place].split(separator)
        if len(parts) > 1:
            parts[rng.integers(len(parts))] = ODD[rng.integers(len(ODD))]
            lines[place] = separator.join(parts)
            return
    lines[place] = ODD[rng.integers(len(ODD))]


def timed(outcome: Callable[[int], str], seed: int) -> str:
    """An outcome, or that it took too long."""
    begun = time.monotonic()
    result = outcome(seed)
    seconds = time.monotonic() - begun
    return f"{result}, after {seconds:.1f} s" if seconds > SECONDS else result


def _outcomes(outcome: Callable[[int], str], seeds: Sequence[int]) -> list[tuple[int, str]]:
    outcome(seeds[0])  # so that what is made once does not count
    return [(seed, timed(outcome, seed)) for seed in seeds]


def _limit_memory():
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(outcome: Callable[[int], str], seeds: Sequence[int], processes: int = 1, chunk: int = 100) -> Result:
    """Try every seed in other processes, so that a crash does not end the tests.

    Args:
        outcome: `accepted`, `refused`, or what went wrong with the input of a seed.
    """
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    chunks = [seeds[first : first + chunk] for first in range(0, len(seeds), chunk)]
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_limit_memory) as pool:
        futures = [pool.submit(partial(_outcomes, outcome), part) for part in chunks]
        for part, future in zip(chunks, futures, strict=True):
            try:
                results = future.result()
            except BrokenProcessPool:
                results = [(part[0], f"a crash, of one of {len(part)} from here, or of those at the same time")]
            counts.update(text for _, text in results if text in GOOD)
            failures += [result for result in results if result[1] not in GOOD]
    return Result(counts, failures)
