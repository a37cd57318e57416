"""The check of the data that `--dry_run` makes: everything but the recordings, of which it decodes the first."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from merhan.data.loading import check_data, load_data
from merhan.errors import InputError
from merhan.recipe.schema import DataRecipe


SPLITS = ["train"] * 6 + ["validation", "validation", "test", "test"]


@pytest.fixture
def folder(tmp_path):
    rows = []
    for number, split in enumerate(SPLITS):
        noise = 0.1 * np.random.default_rng(number).standard_normal(8000)
        noise[: 700 * (number + 1)] *= 0.001  # a rhythm of its own
        soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
        rows.append([f"{number}.wav", f"word {number}", ("joy", "anger")[number % 2], split, f"{split}{number}"])
    pd.DataFrame(rows, columns=["audio", "text", "label", "split", "speaker"]).to_csv(tmp_path / "m.csv", index=False)
    return tmp_path


def check(folder, modalities=("audio", "text"), **fields) -> list[str]:
    return check_data(DataRecipe("table", str(folder / "m.csv"), **fields), modalities, modalities, recordings=2)


def test_it_says_what_was_checked_and_what_was_not(folder):
    first, second = check(folder)
    assert "10 rows (train 6, validation 2, test 2), labels anger, joy" in first
    assert second == "decoded 6 recordings; not checked: 4 others, and copies among recordings"
    (only,) = check(folder, ["text"])
    assert "10 rows" in only


@pytest.mark.parametrize(
    ("change", "fields", "expected"),
    [
        ("labels", {}, "label 'happy' .10 rows."),
        ("columns", {"options": {"columns": {"audio": "fiel"}}}, "the table has no column 'fiel'"),
        ("split", {"protocol": "loso:session"}, "loso:session needs a session"),
        ("leak", {}, "the splits leak. speaker:"),
        ("first", {}, "row 1 .* (cannot be decoded|empty file)"),
        ("missing", {}, r"row 5 \('m-000005'\): .*4.wav: no such file, as 1 of 10 recordings; .*data.options.root"),
    ],
)
def test_it_refuses_what_a_run_would(change, fields, expected, folder):
    rows = pd.read_csv(folder / "m.csv")
    if change == "labels":
        rows["label"] = "happy"
    if change == "leak":
        rows["speaker"] = "anna"
    rows.to_csv(folder / "m.csv", index=False)
    if change == "first":
        (folder / "0.wav").write_bytes(b"")
    if change == "missing":
        (folder / "4.wav").unlink()
    with pytest.raises(InputError, match=expected):
        check(folder, **fields)


def test_a_run_names_missing_recordings_before_it_decodes_any(folder):
    for number in (3, 8):
        (folder / f"{number}.wav").unlink()
    with pytest.raises(InputError, match=r"row 4 .*no such file, as 2 of 10 recordings"):
        load_data(DataRecipe("table", str(folder / "m.csv")), ["audio"], ["audio"])
