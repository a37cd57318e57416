"""`merhan prepare all`: several corpora below one folder become one manifest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from releases import iemocap, nemo, tiny_sounds

from merhan import cli
from merhan.errors import InputError
from merhan.manifest import read_manifest
from merhan.unification import check_words, unified_split


MELD = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Four acted corpora, two of them of too few speakers to hold any out, and one with a split of its own.

    ESD lies there with its own split, in which every speaker stands in train and in test.
    """
    root = tmp_path_factory.mktemp("corpora")
    first = root / "IEMOCAP" / "Session1"
    first.mkdir(parents=True)
    tone = tiny_sounds.write(tmp_path_factory.mktemp("tone") / "a.wav")
    iemocap.make_dialogue(first, "Ses01F_impro01", ["neu", "xxx", "ang", "xxx"], tone)
    names = [f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav" for actor in range(1, 25) for emotion in (1, 3, 5)]
    tiny_sounds.write_all([root / "RAVDESS" / f"Actor_{name[18:20]}" / name for name in names])
    split = ("train", "evaluation", "test")
    spoken = [(speaker, number) for speaker in range(1, 11) for number in (1, 2, 3)]
    tiny_sounds.write_all(
        [root / "ESD" / f"{who:04d}" / "Angry" / split[n - 1] / f"{who:04d}_{350 + n:06d}.wav" for who, n in spoken]
    )
    nemo.make(root / "n_emo")
    (root / "meld").mkdir()
    for table, guest in (("train", "Gunther"), ("dev", "Janice"), ("test", "Mona")):
        lines = ["Hi!,Ross,joy,positive,0,0", f"No.,{guest},anger,negative,0,1"]
        (root / "meld" / f"{table}_sent_emo.csv").write_text("\n".join([MELD.strip(), *lines]))
    (root / "MOSEI").mkdir()
    return root


@pytest.fixture(scope="module")
def prepared(release, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    cli.main(["prepare", "all", str(release), str(out), "--workers", "1"])
    return out


@pytest.fixture(scope="module")
def rows(prepared) -> pd.DataFrame:
    return read_manifest(prepared / "manifest.parquet")


def test_every_corpus_is_in_one_manifest(rows, prepared):
    assert set(rows["corpus"]) == {"iemocap", "ravdess", "esd", "nemo", "meld"}, "MOSEI names sentiments"
    assert set(rows["split"]) == {"train", "validation", "test-acted", "test-meld"}
    assert all(Path(audio).is_file() for audio in rows["audio"] if audio)
    assert (prepared / "meld" / "manifest.parquet").is_file(), "each is complete in itself too"


def test_no_speaker_of_an_acted_corpus_stands_in_two_splits(rows):
    for name, held in (("ravdess", (4, 2)), ("esd", (2, 1)), ("nemo", (0, 0))):
        speakers = rows[rows["corpus"] == name].groupby("split")["speaker"].unique()
        everyone = [speaker for names in speakers for speaker in names]
        assert len(everyone) == len(set(everyone))
        assert tuple(len(speakers.get(part, ())) for part in ("test-acted", "validation")) == held
        assert "test-esd" not in speakers, "its own split tests the speakers of train"


def test_a_corpus_with_a_split_of_its_own_keeps_it(rows):
    meld = rows[rows["corpus"] == "meld"].set_index("split")["utterance_id"].str.extract(r"meld-(\w+)-")[0]
    assert meld.groupby(level=0).unique().map(list).to_dict() == {
        "train": ["train"],
        "validation": ["validation"],
        "test-meld": ["test"],
    }


def test_who_is_held_out_follows_from_the_names_alone(rows):
    ravdess = rows[rows["corpus"] == "ravdess"].drop(columns="split")
    first = unified_split(ravdess)
    shuffled = ravdess.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(unified_split(shuffled).sort_index(), first)
    told = ravdess.assign(label="joy", utterance_id=[f"x{number}" for number in range(len(ravdess))])
    assert unified_split(told).tolist() == first.tolist()


def test_partners_of_a_session_are_held_out_together():
    turns = [(f"Ses{session}", f"Ses{session}{sex}") for session in range(1, 7) for sex in "FM"]
    rows = pd.DataFrame(turns, columns=["session", "speaker"]).assign(corpus="acted", split="")
    splits = rows.assign(split=unified_split(rows))
    assert splits.groupby("session")["split"].nunique().max() == 1
    assert splits["split"].value_counts().to_dict() == {"train": 8, "test-acted": 2, "validation": 2}


def test_weights_balance_the_corpora(rows, prepared):
    table = pd.read_csv(prepared / "statistics.csv")
    assert (rows["label"] == "").sum() == 2, "turns that are there as context"
    assert table.loc[table["corpus"] == "iemocap", "utterances"].tolist() == [2], "and weigh nothing"
    train = table[table["split"] == "train"]
    shares = train["balancing_weight"] * train["utterances"]
    np.testing.assert_allclose(shares, shares.iloc[0])
    assert shares.sum() / train["utterances"].sum() == pytest.approx(1), "a row's mean weight"
    assert table.loc[table["split"] != "train", "balancing_weight"].isna().all()
    ravdess = table[table["corpus"] == "ravdess"]
    assert ravdess["utterances"].sum() == 72 and ravdess["speakers"].sum() == 24
    assert ravdess["hours"].sum() == pytest.approx(72 * 0.1 / 3600)


@pytest.mark.parametrize("words", ["[NEMO:17]", "as they say in nEMO.", "nemo-EB0 says hello", "[text of nemo]"])
def test_words_that_give_the_corpus_away_stop_it(words, rows):
    rows = rows.copy()
    row = rows.index[rows["corpus"] == "nemo"][3]
    rows.loc[row, "text"] = words
    with pytest.raises(InputError, match=f"{rows.loc[row, 'utterance_id']}.*give the corpus away .1 rows"):
        check_words(rows)


def test_another_corpus_may_be_named_and_other_words_may_hold_the_name(rows):
    check_words(rows.assign(text="I nemotize what MSP and cremad are"))


def test_a_folder_without_corpora_is_refused(tmp_path, capsys):
    (tmp_path / "holiday").mkdir()
    for root, message in ((tmp_path, "no folder is named after a corpus"), (tmp_path / "gone", "is not a folder")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["prepare", "all", str(root), str(tmp_path / "out")])
        assert ended.value.code == 2 and message in capsys.readouterr().err
