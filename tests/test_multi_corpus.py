"""`merhan prepare all`: several corpora below a folder are joined in one manifest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from releases import iemocap, nemo, tiny_sounds

from merhan.cli import main as cli
from merhan.data.manifest import read_manifest
from merhan.data.multi_corpus import refuse_corpus_names, unified_split
from merhan.errors import InputError


MELD = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Four acted corpora, two of them with too few speakers to hold any out, and one with an official split.

    ESD has its official split, in which every speaker is both in train and in test.
    """
    root = tmp_path_factory.mktemp("corpora")
    first = root / "IEMOCAP" / "Session1"
    first.mkdir(parents=True)
    tone = tiny_sounds.write(tmp_path_factory.mktemp("tone") / "a.wav")
    iemocap.make_dialogue(first, "Ses01F_impro01", ["neu", "xxx", "ang", "xxx"], tone)
    names = [f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav" for actor in range(1, 25) for emotion in (1, 3, 5)]
    tiny_sounds.write_all([root / "RAVDESS" / f"Actor_{name[18:20]}" / name for name in names])
    split = ("train", "evaluation", "test")
    recorded = [(speaker, number) for speaker in range(1, 11) for number in (1, 2, 3)]
    tiny_sounds.write_all(
        [
            root / "ESD" / f"{speaker:04d}" / "Angry" / split[number - 1] / f"{speaker:04d}_{350 + number:06d}.wav"
            for speaker, number in recorded
        ]
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
    assert set(rows["corpus"]) == {"iemocap", "ravdess", "esd", "nemo", "meld"}, "MOSEI has sentiment labels"
    assert set(rows["split"]) == {"train", "validation", "test-acted", "test-meld"}
    assert all(Path(audio).is_file() for audio in rows["audio"] if audio)
    assert (prepared / "meld" / "manifest.parquet").is_file(), "each is also prepared on its own"


def test_no_speaker_of_an_acted_corpus_is_in_two_splits(rows):
    for name, held_out in (("ravdess", (4, 2)), ("esd", (2, 1)), ("nemo", (0, 0))):
        speakers = rows[rows["corpus"] == name].groupby("split")["speaker"].unique()
        all_speakers = [speaker for names in speakers for speaker in names]
        assert len(all_speakers) == len(set(all_speakers))
        assert tuple(len(speakers.get(part, ())) for part in ("test-acted", "validation")) == held_out
        assert "test-esd" not in speakers, "its official split tests the speakers of train"


def test_an_official_split_is_kept(rows):
    meld = rows[rows["corpus"] == "meld"].set_index("split")["utterance_id"].str.extract(r"meld-(\w+)-")[0]
    assert meld.groupby(level=0).unique().map(list).to_dict() == {
        "train": ["train"],
        "validation": ["validation"],
        "test-meld": ["test"],
    }


def test_held_out_speakers_depend_on_their_names_only(rows):
    ravdess = rows[rows["corpus"] == "ravdess"].drop(columns="split")
    first = unified_split(ravdess)
    shuffled = ravdess.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(unified_split(shuffled).sort_index(), first)
    changed = ravdess.assign(label="joy", utterance_id=[f"x{number}" for number in range(len(ravdess))])
    assert unified_split(changed).tolist() == first.tolist()


def test_partners_of_a_session_are_held_out_together():
    turns = [(f"Ses{session}", f"Ses{session}{sex}") for session in range(1, 7) for sex in "FM"]
    rows = pd.DataFrame(turns, columns=["session", "speaker"]).assign(corpus="acted", split="")
    splits = rows.assign(split=unified_split(rows))
    assert splits.groupby("session")["split"].nunique().max() == 1
    assert splits["split"].value_counts().to_dict() == {"train": 8, "test-acted": 2, "validation": 2}


def test_weights_balance_the_corpora(rows, prepared):
    table = pd.read_csv(prepared / "statistics.csv")
    assert (rows["label"] == "").sum() == 2, "turns that are context only"
    assert table.loc[table["corpus"] == "iemocap", "utterances"].tolist() == [2], "they are not counted"
    train = table[table["split"] == "train"]
    shares = train["balancing_weight"] * train["utterances"]
    np.testing.assert_allclose(shares, shares.iloc[0])
    assert shares.sum() / train["utterances"].sum() == pytest.approx(1), "the mean weight of a row"
    assert table.loc[table["split"] != "train", "balancing_weight"].isna().all()
    ravdess = table[table["corpus"] == "ravdess"]
    assert ravdess["utterances"].sum() == 72 and ravdess["speakers"].sum() == 24
    assert ravdess["hours"].sum() == pytest.approx(72 * 0.1 / 3600)


@pytest.mark.parametrize("text", ["[NEMO:17]", "as they say in nEMO.", "nemo-EB0 says hello", "[text of nemo]"])
def test_a_text_that_names_its_corpus_is_an_error(text, rows):
    rows = rows.copy()
    row = rows.index[rows["corpus"] == "nemo"][3]
    rows.loc[row, "text"] = text
    with pytest.raises(InputError, match=f"{rows.loc[row, 'utterance_id']}.*names its corpus .1 rows"):
        refuse_corpus_names(rows)


def test_a_text_may_name_another_corpus_or_contain_the_name(rows):
    refuse_corpus_names(rows.assign(text="I nemotize what MSP and cremad are"))


def test_a_folder_without_corpora_is_an_error(tmp_path, capsys):
    (tmp_path / "holiday").mkdir()
    for root, message in ((tmp_path, "no folder is named after a corpus"), (tmp_path / "gone", "is not a folder")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["prepare", "all", str(root), str(tmp_path / "out")])
        assert ended.value.code == 2 and message in capsys.readouterr().err
