"""The EmoV-DB reader, on a synthetic release with the irregular files of the original."""

from pathlib import Path

import pytest
from releases import emovdb

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.emovdb_corpus import ABOUT
from merhan.errors import InputError


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return emovdb.make(tmp_path_factory.mktemp("emovdb") / "EmoV-DB")


@pytest.fixture(scope="module")
def corpus(release):
    return read_corpus("emovdb", release)


def test_rows_of_the_synthetic_release(corpus):
    rows = corpus.rows
    assert len(rows) == 16 * 3 and rows["utterance_id"].is_unique
    assert rows["label"].value_counts().to_dict() == {
        "amusement": 12, "disgust": 12, "neutral": 12, "anger": 6, "sleepiness": 6
    }  # fmt: skip
    assert rows.groupby("speaker")["gender"].first().to_dict() == {
        "emovdb-bea": "female", "emovdb-jenie": "female", "emovdb-josh": "male", "emovdb-sam": "male"
    }  # fmt: skip
    assert set(rows["source_label"]) == set(ABOUT.published) and sum(ABOUT.published.values()) == 6887


def test_irregular_file_names_are_read(corpus):
    ids = set(corpus.rows["utterance_id"])
    for name in ("bea-Amused-amused_1_15_0011", "bea-Neutral-Neutral_1-28_0011", "sam-Disgusted-Disgust_1_28_0560"):
        assert f"emovdb-{name}" in ids


def test_the_label_is_the_folders_even_if_the_file_name_differs(corpus):
    rows = corpus.rows[corpus.rows["speaker"] == "emovdb-sam"]
    assert set(rows.loc[rows["utterance_id"].str.contains("isgust"), "label"]) == {"disgust"}
    sleepy = corpus.rows[corpus.rows["utterance_id"].str.contains("sleepiness_")]
    assert set(sleepy["source_label"]) == {"Sleepy"} and set(sleepy["label"]) == {"sleepiness"}


def test_texts_are_of_set_a(corpus):
    """If set B overwrote set A, every sentence that is in both sets would have a wrong text."""
    texts = corpus.rows.groupby("sentence")["text"].unique()
    assert texts["emovdb-a0001"].tolist() == ["Author of the danger trail, Philip Steels, etc."]
    assert not corpus.rows["text"].str.contains("set B").any() and not corpus.remarks
    assert set(corpus.rows["sentence"]) == {"emovdb-a0001", "emovdb-a0011", "emovdb-a0560"}


def test_without_cmuarctic_data_there_is_no_text_and_a_remark(release, tmp_path):
    (tmp_path / "bea_Angry").symlink_to(release / "bea_Angry")
    corpus = read_corpus("emovdb", tmp_path / "bea_Angry")
    assert set(corpus.rows["text"]) == {""} and set(corpus.rows["label"]) == {"anger"}
    assert corpus.remarks == [
        "none of 3 rows has text: cmuarctic.data is not below the folder; give its path with data.options.arctic "
        "(`--option arctic=...`)"
    ]
    corpus = read_corpus("emovdb", tmp_path / "bea_Angry", arctic=release / "cmuarctic.data")
    assert corpus.rows["text"].iloc[0].startswith("Author") and not corpus.remarks
    with pytest.raises(InputError, match="data.options.arctic .*: 'gone.data' is not a file"):
        read_corpus("emovdb", release, arctic="gone.data")


def test_sentences_that_cmuarctic_data_lacks_are_counted(release, tmp_path):
    (tmp_path / "short.data").write_text(emovdb.ARCTIC.partition("\n")[0])
    corpus = read_corpus("emovdb", release, arctic=tmp_path / "short.data")
    assert corpus.remarks == ["32 of 48 rows have no text: cmuarctic.data lacks their sentences"]


def test_a_malformed_line_of_cmuarctic_data_is_an_error(release, tmp_path):
    (tmp_path / "bad.data").write_text(emovdb.ARCTIC + "( arctic_a0002 Not at this particular case )\n")
    with pytest.raises(InputError, match="bad.data, line 8: is not like"):
        read_corpus("emovdb", release, arctic=tmp_path / "bad.data")


def test_a_repeated_sentence_in_a_folder_gives_two_rows(corpus):
    rows = corpus.rows
    repeated = rows[(rows["sentence"] == "emovdb-a0011") & rows["audio"].str.contains("bea_Amused")]
    assert len(repeated) == 2


def test_other_files_are_counted(corpus):
    assert "2 left out: its name is not an EmoV-DB name" in corpus.notes
    assert "1 left out: its folder is not an EmoV-DB folder" in corpus.notes


def test_folders_of_the_sorted_release_are_read(release, tmp_path):
    (tmp_path / "bea" / "Amused").mkdir(parents=True)
    wav = tmp_path / "bea" / "Amused" / "amused_1-15_0001.wav"
    wav.hardlink_to(release / "bea_Amused" / wav.name)
    assert read_corpus("emovdb", tmp_path).rows["utterance_id"].item() == "emovdb-bea-Amused-amused_1-15_0001"
    wav.parent.rename(tmp_path / "bea" / "Amsued")
    with pytest.raises(
        InputError, match="label 'Amsued' is not in the label table of this corpus; did you mean 'Amused'"
    ):
        read_corpus("emovdb", tmp_path)
    (tmp_path / "bea" / "Amsued" / wav.name).unlink()
    with pytest.raises(InputError, match="no EmoV-DB recording"):
        read_corpus("emovdb", tmp_path)


def test_both_sampling_rates_and_a_second_header_are_decoded(corpus):
    assert measure_recordings(corpus.rows, "emovdb")[0]["duration"].between(0.03, 0.11).all()
