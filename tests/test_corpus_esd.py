"""The ESD reader, on a synthetic release with the irregular files of the original."""

from pathlib import Path

import pandas as pd
import pytest
from releases import esd

from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.esd_corpus import ABOUT, decode
from merhan.errors import InputError


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return esd.make(tmp_path_factory.mktemp("esd") / "Emotional Speech Dataset (ESD)" / "Emotion Speech Dataset")


@pytest.fixture(scope="module")
def corpus(release):
    return read_corpus("esd", release)


def of(rows: pd.DataFrame, speaker: str) -> pd.DataFrame:
    return rows[rows["speaker"] == f"esd-{speaker}"].set_index("utterance_id")


def test_rows_of_the_synthetic_release(corpus):
    rows = corpus.rows
    assert len(rows) == 8 * 5 * 6 and rows["utterance_id"].is_unique
    assert rows["label"].value_counts().to_dict() == dict.fromkeys(
        ("neutral", "anger", "joy", "sadness", "surprise"), 48
    )
    assert sum(ABOUT.published.values()) == 35_000 and set(ABOUT.published) == set(rows["source_label"])
    men = sorted(set(rows.loc[rows["gender"] == "male", "speaker"]))
    assert men == ["esd-0004", "esd-0011", "esd-0012", "esd-0020"]


@pytest.mark.parametrize("speaker", ["0001", "0003", "0004", "0011", "0012", "0016"])
def test_transcripts_in_every_encoding_are_read(speaker, corpus):
    rows = of(corpus.rows, speaker)
    assert len(rows) == 30
    for name, text in rows["text"].items():
        expected = esd.sentence(speaker, int(name[-6:]))
        assert text == (expected if speaker <= "0010" else expected.replace("，", ","))


def test_a_byte_order_mark_is_not_part_of_the_first_line(corpus):
    assert of(corpus.rows, "0015").loc["esd-0015_000001", "text"] == "Sentence 1, said the cat."


def test_an_english_transcript_may_be_in_gbk(corpus):
    """Decoded as Latin-1, its full-width commas would become currency signs."""
    assert not of(corpus.rows, "0016")["text"].str.contains("[£¬，]").any()


def test_an_unknown_encoding_is_an_error(tmp_path):
    (tmp_path / "0011.txt").write_bytes(b"0011_000001\tA \x80\xff line\tNeutral\n")
    with pytest.raises(InputError, match="0011.txt: is not UTF-8, UTF-16"):
        decode(tmp_path / "0011.txt")


def test_the_label_is_the_folders(corpus):
    row = of(corpus.rows, "0015").loc["esd-0015_000350"]
    assert row["label"] == "neutral"
    assert "1 transcript lines name another emotion than the folder, which was used" in corpus.remarks


def test_chinese_labels_in_a_transcript_are_recognised(corpus):
    assert not corpus.rows["text"].str.contains("|".join(esd.CHINESE)).any()
    assert len([remark for remark in corpus.remarks if "another emotion" in remark]) == 1


def test_spaces_in_place_of_tabs(corpus):
    texts = of(corpus.rows, "0015")["text"]
    assert (texts != "").sum() == 28 and not texts.str.contains("Neutral|Angry|Sad").any()


def test_transcript_lines_without_a_label_are_counted_and_not_read(corpus):
    reason = "a transcript line without name, text and emotion"
    unreadable = [skipped.item for skipped in corpus.skipped if skipped.reason == reason]
    assert unreadable == ["0015.txt, line 29", "0015.txt, line 31", "0015.txt, line 32"]
    assert of(corpus.rows, "0015").loc[["esd-0015_000002", "esd-0015_000352"], "text"].tolist() == ["", ""]


def test_rows_without_a_transcript_are_counted(corpus):
    assert set(of(corpus.rows, "0020")["text"]) == {""}
    assert corpus.remarks[0] == "32 of 240 rows have no text: the transcripts of their speakers lack them"


def test_nested_folders_are_the_official_split(corpus):
    rows = corpus.rows
    nested = rows[rows["speaker"].isin(["esd-0003", "esd-0004", "esd-0012"])]
    assert set(nested["split"]) == {"train", "validation", "test"}
    assert set(nested["source_label"]) == set(esd.EMOTIONS), "the emotion is the folder above the split"
    assert set(of(rows, "0011")["split"]) == {""}
    evaluation = nested.loc[nested["audio"].str.contains("/evaluation/"), "split"]
    assert len(evaluation) and set(evaluation) == {"validation"}


def test_parallel_sentences_share_their_id_within_a_language(corpus):
    rows = corpus.rows
    assert rows["sentence"].nunique() == 12 and "esd-zh-000" in set(rows["sentence"]), "number 350 is sentence 0"
    assert (rows.groupby("sentence").size() == [25] * 6 + [15] * 6).all()
    transcribed = rows[rows["text"] != ""]
    assert (transcribed.groupby("sentence")["text"].nunique() == 1).all()
    assert (rows.groupby("sentence")["language"].nunique() == 1).all()


def test_languages_of_the_speakers(corpus):
    languages = corpus.rows.groupby("speaker")["language"].first()
    assert languages.tolist() == ["zh"] * 3 + ["en"] * 5


def test_other_files_are_counted_and_unknown_folders_are_errors(release, corpus, tmp_path):
    assert "1 left out: its name is not an ESD name" in corpus.notes
    (tmp_path / "0011" / "Bored").mkdir(parents=True)
    with pytest.raises(InputError, match="no ESD recording"):
        read_corpus("esd", tmp_path)
    (tmp_path / "0011" / "Bored" / "0011_000351.wav").hardlink_to(release.parent / "noise.wav")
    with pytest.raises(InputError, match="esd-0011_000351: label 'Bored'"):
        read_corpus("esd", tmp_path)
