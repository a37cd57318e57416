"""The CREMA-D reader: the real annotations if they are available, and a synthetic release with irregular files."""

import json
from pathlib import Path

import pytest
from releases import cremad

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import Skipped, read_corpus
from merhan.data.corpora.cremad_corpus import ABOUT, LABEL_SOURCES, SENTENCES, majority, read_votes
from merhan.errors import InputError


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return cremad.make(tmp_path_factory.mktemp("cremad") / "CREMA-D")


def row(rows, name: str):
    return rows.set_index("utterance_id").loc[f"cremad-{name}"]


# --- the real annotations ---


def test_real_annotations_have_the_published_counts_and_agreement(corpora):
    votes = read_votes(corpora / "cremad")
    assert len(votes) == 7442 == sum(ABOUT.published.values())
    intended = [name.split("_")[2] for name in votes]
    assert {word: intended.count(word) for word in ABOUT.published} == ABOUT.published
    voted = [majority(counts) for counts in votes.values()]
    agree = sum(letter == word[0] for letter, word in zip(voted, intended, strict=True))
    assert agree == 3099 and round(agree / 7442, 3) == 0.416
    assert voted.count("N") == 3897 and voted.count(None) == 644
    assert sum(sum(counts.values()) for counts in votes.values()) / 7442 == pytest.approx(9.21, abs=0.01)


def test_real_recordings_and_their_votes(corpora):
    corpus = read_corpus("cremad", corpora / "cremad")
    assert len(corpus.rows) == 7 and not corpus.skipped
    assert corpus.remarks == [
        f"the label is {LABEL_SOURCES['intended']}",
        "7442 recordings were rated, 7 of them are available",
    ]
    assert set(corpus.rows["gender"]) == {"male"} and set(corpus.rows["speaker"]) == {"cremad-1001", "cremad-1050"}
    happy = row(corpus.rows, "1001_IOM_HAP_XX")
    assert happy["label"] == "joy" and happy["text"] == "I'm on my way to the meeting."
    assert measure_recordings(corpus.rows, "cremad")[0]["duration"].between(1, 5).all()


# --- the synthetic release ---


def test_rows_of_the_synthetic_release(release):
    corpus = read_corpus("cremad", release)
    rows = corpus.rows
    assert len(rows) == 3 * 82 - 1
    assert rows["label"].value_counts().to_dict() == {
        "anger": 42, "disgust": 42, "fear": 42, "joy": 42, "sadness": 41, "neutral": 36
    }  # fmt: skip
    assert rows["utterance_id"].is_monotonic_increasing
    assert rows.groupby("speaker")["gender"].first().tolist() == ["male", "female", "female"]
    assert corpus.remarks[0] == "the label is the emotion that the actor was asked for"


def test_all_twelve_sentences_have_a_text(release):
    rows = read_corpus("cremad", release).rows
    assert rows["sentence"].nunique() == len(SENTENCES) == 12 and rows["text"].nunique() == 12
    assert not rows["text"].str.contains("[", regex=False).any(), "no placeholder like [CREMA-D:IWL]"


def test_votes_are_of_the_voice_only_raters(release):
    rows = read_corpus("cremad", release).rows
    assert json.loads(row(rows, "1001_DFA_ANG_XX")["votes"]) == {"joy": 2, "neutral": 7}
    assert json.loads(row(rows, "1001_TSI_FEA_XX")["votes"]) == {"anger": 4, "disgust": 4, "neutral": 1}


def test_voice_labels_are_an_option_and_ties_are_counted(release):
    corpus = read_corpus("cremad", release, labels="voice")
    tied = [skipped.item for skipped in corpus.skipped if skipped.reason == "its voice-only raters are tied"]
    assert len(tied) == 18 and all("_TSI_" in name for name in tied)
    assert "18 left out: its voice-only raters are tied" in corpus.notes
    assert row(corpus.rows, "1001_DFA_ANG_XX")["label"] == "neutral"
    assert row(corpus.rows, "1001_DFA_ANG_XX")["source_label"] == "N", (
        "the letter of the votes shows the source of the label"
    )
    assert row(corpus.rows, "1001_WSI_ANG_XX")["label"] == "anger"
    assert corpus.remarks[0] == "the label is the majority of the voice-only raters"


def test_an_unknown_label_source_is_an_error(release):
    with pytest.raises(InputError, match="data.options.labels .*: unknown 'voices'; did you mean 'voice'"):
        read_corpus("cremad", release, labels="voices")


def test_the_silent_recording_is_left_out(release):
    corpus = read_corpus("cremad", release)
    assert Skipped("1076_MTI_SAD_XX.wav", "its recording is silent") in corpus.skipped
    assert "cremad-1076_MTI_SAD_XX" not in set(corpus.rows["utterance_id"])


def test_a_recording_of_which_only_the_mp3_file_is_bad_is_read(release):
    assert row(read_corpus("cremad", release).rows, "1076_MTI_NEU_XX")["label"] == "neutral"


def test_a_git_lfs_pointer_is_listed_and_reported_when_decoded(release):
    rows = read_corpus("cremad", release).rows
    pointer = rows[rows["utterance_id"] == "cremad-1001_DFA_ANG_XX"]
    assert pointer["audio"].item().endswith("1001_DFA_ANG_XX.wav")
    with pytest.raises(InputError, match="Git LFS pointer"):
        measure_recordings(pointer, "cremad")


def test_the_misnamed_recording_of_older_copies_is_read(release):
    misnamed = row(read_corpus("cremad", release).rows, "1040_ITH_SAD_XX")
    assert misnamed["audio"].endswith("1040_ITH_SAD_X.wav") and misnamed["label"] == "sadness" and misnamed["votes"]


def test_other_files_are_counted(release):
    assert "1 left out: its name is not a CREMA-D name" in read_corpus("cremad", release).notes


def test_without_the_tables_rows_have_neither_votes_nor_gender(release, tmp_path):
    for name in ("1001_DFA_HAP_XX.wav", "1001_WSI_SAD_XX.wav"):
        (tmp_path / name).hardlink_to(release / "AudioWAV" / name)
    corpus = read_corpus("cremad", tmp_path)
    assert set(corpus.rows["votes"]) == {""} and set(corpus.rows["gender"]) == {""}
    assert corpus.remarks[1:] == [
        "2 rows have no votes: tabulatedVotes.csv lacks them",
        "2 rows have no gender: VideoDemographics.csv lacks them",
    ]
    with pytest.raises(InputError, match="tabulatedVotes.csv is not below it"):
        read_corpus("cremad", tmp_path, labels="voice")


def test_unknown_emotions_and_sentences_are_errors(release, tmp_path):
    recording = release / "AudioWAV" / "1001_DFA_HAP_XX.wav"
    (tmp_path / "1001_DFA_JOY_XX.wav").hardlink_to(recording)
    with pytest.raises(InputError, match="cremad-1001_DFA_JOY_XX: label 'JOY'"):
        read_corpus("cremad", tmp_path)
    (tmp_path / "1001_DFA_JOY_XX.wav").rename(tmp_path / "1001_XYZ_HAP_XX.wav")
    with pytest.raises(InputError, match="1001_XYZ_HAP_XX.wav: label 'XYZ'"):
        read_corpus("cremad", tmp_path)
    (tmp_path / "1001_XYZ_HAP_XX.wav").unlink()
    with pytest.raises(InputError, match="no CREMA-D recording"):
        read_corpus("cremad", tmp_path)


def test_a_damaged_table_is_an_error(release, tmp_path):
    (tmp_path / "1001_DFA_HAP_XX.wav").hardlink_to(release / "AudioWAV" / "1001_DFA_HAP_XX.wav")
    (tmp_path / "tabulatedVotes.csv").write_text('"","A","D","F","H","N","fileName"\n')
    with pytest.raises(InputError, match="tabulatedVotes.csv: lacks the column 'S'"):
        read_corpus("cremad", tmp_path)
    (tmp_path / "tabulatedVotes.csv").write_text(
        '"","A","D","F","H","N","S","fileName"\n"100001",0,0,0,NA,9,0,"1001_DFA_HAP_XX"\n'
    )
    with pytest.raises(InputError, match="tabulatedVotes.csv, line 2: a number of votes is not an integer"):
        read_corpus("cremad", tmp_path)
