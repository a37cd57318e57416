"""A synthetic IEMOCAP of full size, with the published counts and the irregularities of the release."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile


# Turns per session, as counted in the release. For sur, fea, dis and oth only the totals of sessions 1 to 4, and the
# counts of session 5, are known; xxx has the remaining turns.
TURNS = {1: 1819, 2: 1811, 3: 2136, 4: 2103, 5: 2170}
COUNTS = {
    session: dict(zip(("neu", "hap", "exc", "ang", "sad", "fru", "sur", "fea", "dis", "oth"), counts, strict=True))
    for session, counts in {
        1: (384, 135, 143, 229, 194, 280, 22, 8, 1, 1),
        2: (362, 117, 210, 137, 197, 325, 22, 8, 1, 1),
        3: (320, 135, 151, 240, 305, 382, 22, 7, 0, 1),
        4: (258, 65, 238, 327, 143, 481, 23, 7, 0, 0),
        5: (384, 143, 299, 170, 245, 381, 18, 10, 0, 0),
    }.items()
}
# The improvised ones of these (counted in EmoBox's list of the release); for the other labels only the sum is known.
FOUR = ("neu", "hap", "exc", "ang", "sad")
IMPROVISED = {
    1: (223, 33, 99, 62, 104),
    2: (217, 54, 137, 22, 100),
    3: (198, 60, 89, 90, 190),
    4: (174, 31, 164, 84, 81),
    5: (287, 106, 174, 31, 133),
}
OTHERS_IMPROVISED = 1841
WORDS = {
    "neu": "Neutral",
    "hap": "Happiness",
    "exc": "Excited",
    "ang": "Anger",
    "sad": "Sadness",
    "fru": "Frustration",
    "sur": "Surprise",
    "fea": "Fear",
    "dis": "Disgust",
    "oth": "Other",
}
HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def make(folder: Path) -> Path:
    """Write the release; all turns are hard links to one recording."""
    root = folder / "IEMOCAP_full_release"
    root.mkdir(parents=True)
    tone = folder / "tone.wav"
    soundfile.write(tone, 0.1 * np.sin(np.arange(1600) / 6), 16_000)
    dialogues = defaultdict(list)
    for (session, label), improvised in _styles():
        names = dialogue_names(session, improvised)
        turn = len(dialogues[session, improvised])
        dialogues[session, improvised].append((names[turn % len(names)], label))
    for (session, _), turns in dialogues.items():
        labels = defaultdict(list)
        for dialogue, label in turns:
            labels[dialogue].append(label)
        for dialogue, dialogue_labels in labels.items():
            make_dialogue(root / f"Session{session}", dialogue, dialogue_labels, tone)
    _add_irregularities(root / "Session1", root / "Session5")
    return root


def make_dialogue(session: Path, dialogue: str, labels: list[str], tone: Path):
    """Write one dialogue, whose actors alternate, F first."""
    for name in ("EmoEvaluation", "transcriptions"):
        (session / "dialog" / name).mkdir(parents=True, exist_ok=True)
    recordings = session / "sentences" / "wav" / dialogue
    recordings.mkdir(parents=True)
    ids = [f"{dialogue}_{'FM'[number % 2]}{number // 2:03d}" for number in range(len(labels))]
    blocks = [_block(turn, label, number) for number, (turn, label) in enumerate(zip(ids, labels, strict=True))]
    (session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt").write_text(HEADER + "".join(blocks), newline="\n")
    lines = [_line(turn, number) for number, turn in enumerate(ids)]
    (session / "dialog" / "transcriptions" / f"{dialogue}.txt").write_text("".join(lines), newline="\n")
    for turn in ids:
        os.link(tone, recordings / f"{turn}.wav")


def dialogue_names(session: int, improvised: bool) -> list[str]:
    """The dialogues of a session, 151 in all; some of sessions 3 and 5 have a letter after their number."""
    parts = {actor: [f"impro0{number}" for number in range(1, 8 if session == 1 else 9)] for actor in "FM"}
    if session == 3:
        parts["M"] = [f"impro0{part}" for part in ("1", "2", "3", "4", "5a", "5b", "6", "7", "8a", "8b")]
    if not improvised:
        scripts = ["script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2"]
        parts = {"F": scripts, "M": scripts + ["script01_1b"] * (session == 5)}
    return [f"Ses0{session}{actor}_{part}" for actor in "FM" for part in parts[actor]]


def _styles() -> Iterator[tuple[tuple[int, str], bool]]:
    """Every turn as (session, label), and whether it is improvised: evenly spread, with exact totals."""
    turns = [(session, label) for session, counts in COUNTS.items() for label in counts for _ in range(counts[label])]
    unlabelled = {session: TURNS[session] - sum(counts.values()) for session, counts in COUNTS.items()}
    turns += [(session, "xxx") for session, count in unlabelled.items() for _ in range(count)]
    for session, quotas in IMPROVISED.items():
        for label, quota in zip(FOUR, quotas, strict=True):
            yield from _spread([(session, label)] * COUNTS[session][label], quota)
    yield from _spread([turn for turn in turns if turn[1] not in FOUR], OTHERS_IMPROVISED)


def _spread(turns: list[tuple[int, str]], quota: int) -> Iterator[tuple[tuple[int, str], bool]]:
    for number, turn in enumerate(turns):
        yield turn, (number + 1) * quota // len(turns) > number * quota // len(turns)


def _block(turn: str, label: str, number: int) -> str:
    raters = ["Anger", "Sadness", "Frustration"]
    if label != "xxx":
        raters = [WORDS[label]] * 3
    actor = turn[-4]
    return (
        f"[{5 * number + 6.2901:.4f} - {5 * number + 8.2357:.4f}]\t{turn}\t{label}\t[2.5000, 3.0000, 3.5000]\n"
        + "".join(f"C-E{rater}:\t{word};\t()\n" for rater, word in enumerate(raters, start=2))
        # The self-evaluation of the actor, with a comment that looks like a label.
        + f"C-{actor}1:\tSurprise;\t(Happiness; curious)\n"
        + f"A-E3:\tval 3; act 2; dom  4;\t()\nA-{actor}1:\tval 5; act 5; dom  5;\t()\n\n"
    )


def _line(turn: str, number: int) -> str:
    start, text = 5 * number + 6.2901, "Excuse me."
    if number % 3 == 0:
        start += 1e-4
    if number % 5 == 0:
        text = "I know what it said: nothing."
    return f"{turn} [{start:08.4f}-{5 * number + 8.2357:08.4f}]: {text}\n"


def _add_irregularities(first: Path, last: Path):
    evaluation, transcripts = first / "dialog" / "EmoEvaluation", first / "dialog" / "transcriptions"
    transcript = transcripts / "Ses01F_impro01.txt"
    _rewrite(transcript, "F001 [016.2901-018.2357]: Excuse me.", "F001: No times here.")
    _rewrite(transcript, "M000 [011.2901-013.2357]: Excuse me.", "M000 [011.2901-013.2357]: He [M]: no: go.")
    with transcript.open("a", newline="\n") as file:
        file.write("M: Right.\nF: [LAUGHTER]\n")
        file.write("Ses01F_impro01_MXX0 [990.0000-991.0000]: Hm.\nSes01F_impro01_FXX0 [991.0000-992.0000]: Yes.\n")
    # A rater with two labels, and one with a comment that contains labels.
    block = evaluation / "Ses01F_impro01.txt"
    _rewrite(block, "C-E2:\tNeutral;\t()", "C-E2:\tFrustration; Anger;\t()")
    _rewrite(block, "C-E3:\tNeutral;\t()", "C-E3:\tNeutral;\t(Fear; Disgust;)")
    late = evaluation / "Ses01F_impro02.txt"
    head, *blocks = late.read_text().split("\n\n")
    late.write_text("\n\n".join([head, *reversed([block for block in blocks if block.strip()]), ""]), newline="\n")
    for name, line in (
        ("Categorical", "Ses01F_impro01_F000 :Sadness; ()\n"),
        ("Attribute", "Ses01F_impro01_F000 :act 4; :val 3; :dom 2; ;()\n"),
        ("Self-evaluation", "Ses01F_impro01_F000 :Fear; ()\n"),
    ):
        (evaluation / name).mkdir()
        (evaluation / name / "Ses01F_impro01_e2_cat.txt").write_text(line)
    recordings = first / "sentences" / "wav" / "Ses01F_impro01"
    for metadata in (evaluation / "._Ses01F_impro01.txt", transcripts / "._Ses01F_impro01.txt", recordings / "._a.wav"):
        metadata.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\n[com.apple.quarantine]\n")
    old = last / "dialog" / "transcriptions" / "Ses05M_script02_1.txt"
    _rewrite(
        old, "F001 [016.2901-018.2357]: Excuse me.", "F001 [016.2901-018.2357]: The caf\u00e9\x85 shut.", "latin-1"
    )


def _rewrite(file: Path, old: str, new: str, encoding: str = "utf-8"):
    content = file.read_text()
    assert old in content, f"{file} has no {old!r}"
    file.write_bytes(content.replace(old, new, 1).encode(encoding))
