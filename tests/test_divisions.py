"""Splits without a protocol: grouped and random divisions, and what is said where speakers are few or unknown."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from merhan.cli import main as cli
from merhan.data.leaks import audit
from merhan.data.protocols import load_protocol, protocol_hash, split
from merhan.errors import InputError
from merhan.recipe.schema import SharesRecipe


LABELS = ["anger", "joy", "sadness"]
ACCEPTED = ["speaker"]


def manifest(speakers: int, rows_each: int = 12, labels=LABELS, seed: int = 0) -> pd.DataFrame:
    """Speakers with unequal numbers of rows and labels."""
    rng = np.random.default_rng(seed)
    rows = []
    for speaker in range(speakers):
        for number in range(rows_each + int(rng.integers(0, rows_each))):
            rows.append(
                [f"u{speaker:03d}-{number:03d}", "own", "", f"speaker {speaker} says {number}", f"s{speaker:02d}"]
            )
    table = pd.DataFrame(rows, columns=["utterance_id", "corpus", "audio", "text", "speaker"])
    return table.assign(label=[labels[number] for number in rng.choice(len(labels), len(table), p=[0.5, 0.3, 0.2])])


@pytest.mark.parametrize("speakers", [3, 4, 5, 8, 20, 60])
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_in_one_split_and_labels_in_all(speakers, seed):
    rows, protocol, notes = split(manifest(speakers, seed=seed), "grouped:speaker", 0, shares=SharesRecipe(seed=seed))
    assert rows.groupby("speaker")["split"].nunique().eq(1).all()
    assert set(rows["split"]) == {"train", "validation", "test"}
    assert audit(rows, ["text"]) == []
    shares = rows["split"].value_counts(normalize=True)
    if speakers >= 20:
        assert abs(shares["test"] - 0.15) < 0.05 and abs(shares["validation"] - 0.15) < 0.05
        for name in ("validation", "test"):
            labels = rows.loc[rows["split"] == name, "label"].value_counts(normalize=True)
            assert abs(labels["anger"] - 0.5) < 0.15, "stratified by label"
    few = rows.loc[rows["split"] == "test", "speaker"].nunique() < 5
    assert bool(notes) == few and all("`loso:speaker` over all folds" in note for note in notes)


def test_shares_are_kept():
    rows, _, _ = split(manifest(40), "grouped:speaker", 0, shares=SharesRecipe(validation=0.1, test=0.3))
    shares = rows["split"].value_counts(normalize=True)
    assert abs(shares["test"] - 0.3) < 0.06 and abs(shares["validation"] - 0.1) < 0.05


@pytest.mark.parametrize("protocol", ["grouped:speaker", "random"])
def test_a_division_is_repeated_and_depends_on_its_seed(protocol):
    def division(rows, seed):
        divided, identity, _ = split(rows, protocol, 0, shares=SharesRecipe(seed=seed), accepted=ACCEPTED)
        return divided.set_index("utterance_id")["split"].sort_index(), identity["hash"]

    rows = manifest(30)
    first, identity = division(rows, 0)
    again, same = division(rows.sample(frac=1, random_state=1), 0)
    assert first.equals(again) and identity == same, "the order of the rows does not matter"
    other, different = division(rows, 1)
    assert not first.equals(other) and identity != different


def test_two_speakers_get_what_is_possible():
    rows, _, notes = split(manifest(2), "grouped:speaker", 0)
    assert rows.loc[rows["split"] == "test", "speaker"].nunique() == 1
    assert not set(rows.loc[rows["split"] == "test", "speaker"]) & set(rows.loc[rows["split"] == "train", "speaker"])
    assert any("the epoch is selected on known speakers" in note for note in notes)
    (leak,) = audit(rows, ["text"])
    assert (leak.kind, leak.sides) == ("speaker", ("train", "validation")), "to be accepted by name"


def test_one_speaker_or_none_is_refused_with_the_alternative():
    with pytest.raises(InputError, match="needs two speakers or more, there is only 's00'; use `random`"):
        split(manifest(1), "grouped:speaker", 0)
    rows = manifest(4)
    rows.loc[3, "speaker"] = ""
    with pytest.raises(InputError, match=f"grouped:speaker needs a speaker in every row, 1 of {len(rows)} have none"):
        split(rows, "grouped:speaker", 0)
    with pytest.raises(InputError, match="grouped:session needs a session in every row"):
        split(rows, "grouped:session", 0)


def test_random_needs_its_leak_accepted_by_name():
    with pytest.raises(InputError, match=r"random puts utterances of a speaker into several splits.*\[speaker\]"):
        split(manifest(4), "random", 0)
    rows, _, notes = split(manifest(10), "random", 0, accepted=ACCEPTED)
    shares = rows["split"].value_counts(normalize=True)
    assert abs(shares["test"] - 0.15) < 0.02 and abs(shares["validation"] - 0.15) < 0.02
    counts = rows.groupby("split")["label"].value_counts(normalize=True).unstack()
    assert (counts.max() - counts.min() < 0.05).all(), "stratified by label"
    assert "the result is for known voices" in notes[0]


def test_a_rare_label_cannot_be_divided():
    rows = manifest(4)
    rows.loc[0, "label"] = "fear"
    with pytest.raises(InputError, match="label 'fear' has too few rows to be in train, validation and test"):
        split(rows, "random", 0, accepted=ACCEPTED)


@pytest.mark.parametrize(("speakers", "speaker"), [(count, number) for count in (4, 8) for number in range(count)])
def test_a_label_of_one_speaker_is_trained_on(speakers, speaker):
    """A model cannot be tested on a label that it never saw."""
    rows = manifest(speakers)
    rows.loc[rows["speaker"] == f"s{speaker:02d}", "label"] = "fear"
    divided, _, _ = split(rows, "grouped:speaker", 0)
    assert set(divided.loc[divided["label"] == "fear", "split"]) == {"train"}


def test_results_of_other_shares_are_not_comparable():
    rows = manifest(20)
    specs = [load_protocol("grouped:speaker", rows, SharesRecipe(test=share)) for share in (0.15, 0.3)]
    assert protocol_hash(specs[0]) != protocol_hash(specs[1])


# --- the audit ---

RECIPE = """
run_name: own
data: {{corpus: table, source: {folder}/m.csv{extra}}}
model: {{audio_backbone: light}}
stages: [{{name: train, epochs: 1, learning_rate: {{head: 1.0e-3}}}}]
"""


@pytest.mark.parametrize(
    ("speakers", "extra", "expected"),
    [
        (["a", "b", "c"], "", "no leak"),
        (["", "", ""], "", "no other leak; speakers unknown"),
        (["a", "", "c"], "", "no other leak; speakers unknown"),
        (None, "", "speakers unknown: 6 of 6 rows name none"),
        (["a", "b", "c"], ", protocol: 'grouped:speaker'", "no leak"),
        (None, ", protocol: random, accept_leaks: [speaker]", "speakers unknown: 6 of 6"),
    ],
)
def test_the_audit_says_where_it_cannot_know(speakers, extra, expected, tmp_path, capsys):
    rows = []
    for number, name in enumerate(("train", "validation", "test")):
        for label in ("joy", "anger"):
            path = f"{name}-{label}.wav"
            noise = np.random.default_rng(len(rows)).standard_normal(8000)
            # A rhythm of its own, so that no recording is taken for a copy of another one.
            noise[: 1000 * (len(rows) + 1)] *= 0.001
            soundfile.write(tmp_path / path, 0.1 * noise, 16_000)
            rows.append({"audio": path, "label": label, "split": name})
            if speakers:
                rows[-1]["speaker"] = speakers[number]
    pd.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    (tmp_path / "own.yaml").write_text(RECIPE.format(folder=tmp_path, extra=extra), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "--config", str(tmp_path / "own.yaml")])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and expected in said
    assert ("no leak" in said.splitlines()) == (expected == "no leak")
