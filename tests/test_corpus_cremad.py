"""CREMA-D: the real annotations where they are, a synthetic release for the traps."""

import json
from pathlib import Path

import pytest
from releases import cremad

from merhan.corpora import Skipped, read_corpus
from merhan.corpora.cremad_corpus import ABOUT, SENTENCES, WHOSE, majority, read_votes
from merhan.errors import InputError
from merhan.inspection import measure


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return cremad.make(tmp_path_factory.mktemp("cremad") / "CREMA-D")


def row(rows, name: str):
    return rows.set_index("utterance_id").loc[f"cremad-{name}"]


# --- the real annotations ---


def test_real_annotations_hold_the_published_counts_and_the_two_labels_agree_in_416_of_1000(corpora):
    votes = read_votes(corpora / "cremad")
    assert len(votes) == 7442 == sum(ABOUT.published.values())
    intended = [name.split("_")[2] for name in votes]
    assert {word: intended.count(word) for word in ABOUT.published} == ABOUT.published
    heard = [majority(cast) for cast in votes.values()]
    agree = sum(letter == word[0] for letter, word in zip(heard, intended, strict=True))
    assert agree == 3099 and round(agree / 7442, 3) == 0.416
    assert heard.count("N") == 3897 and heard.count(None) == 644
    assert sum(sum(cast.values()) for cast in votes.values()) / 7442 == pytest.approx(9.21, abs=0.01)


def test_real_recordings_are_read_with_their_real_votes(corpora):
    corpus = read_corpus("cremad", corpora / "cremad")
    assert len(corpus.rows) == 7 and not corpus.skipped
    assert corpus.remarks == [f"the label is {WHOSE['intended']}", "7442 recordings were rated, 7 of them are here"]
    assert set(corpus.rows["gender"]) == {"male"} and set(corpus.rows["speaker"]) == {"cremad-1001", "cremad-1050"}
    happy = row(corpus.rows, "1001_IOM_HAP_XX")
    assert happy["label"] == "joy" and happy["text"] == "I'm on my way to the meeting."
    assert measure(corpus.rows, "cremad")[0]["duration"].between(1, 5).all()


# --- the synthetic release ---


def test_rows_of_the_whole_layout(release):
    corpus = read_corpus("cremad", release)
    rows = corpus.rows
    assert len(rows) == 3 * 82 - 1
    assert rows["label"].value_counts().to_dict() == {
        "anger": 42, "disgust": 42, "fear": 42, "joy": 42, "sadness": 41, "neutral": 36
    }  # fmt: skip
    assert rows["utterance_id"].is_monotonic_increasing
    assert rows.groupby("speaker")["gender"].first().tolist() == ["male", "female", "female"]
    assert corpus.remarks[0] == "the label is the emotion that the actor was asked for"


def test_all_twelve_sentences_have_their_words(release):
    rows = read_corpus("cremad", release).rows
    assert rows["sentence"].nunique() == len(SENTENCES) == 12 and rows["text"].nunique() == 12
    assert not rows["text"].str.contains("[", regex=False).any(), "a published system put [CREMA-D:IWL] for 29 %"


def test_votes_are_of_the_voice_only_raters(release):
    rows = read_corpus("cremad", release).rows
    assert json.loads(row(rows, "1001_DFA_ANG_XX")["votes"]) == {"joy": 2, "neutral": 7}
    assert json.loads(row(rows, "1001_TSI_FEA_XX")["votes"]) == {"anger": 4, "disgust": 4, "neutral": 1}


def test_voice_labels_are_an_option_and_ties_are_counted(release):
    corpus = read_corpus("cremad", release, labels="voice")
    tied = [one.item for one in corpus.skipped if one.reason == "its voice-only raters are tied"]
    assert len(tied) == 18 and all("_TSI_" in name for name in tied)
    assert "18 left out: its voice-only raters are tied" in corpus.notes
    assert row(corpus.rows, "1001_DFA_ANG_XX")["label"] == "neutral"
    assert row(corpus.rows, "1001_DFA_ANG_XX")["source_label"] == "N", "the votes' own letter says whose label it is"
    assert row(corpus.rows, "1001_WSI_ANG_XX")["label"] == "anger"
    assert corpus.remarks[0] == "the label is the majority of the voice-only raters"


def test_an_unknown_kind_of_label_is_refused(release):
    with pytest.raises(InputError, match="data.options.labels: unknown 'voices'; did you mean 'voice'"):
        read_corpus("cremad", release, labels="voices")


def test_the_silent_recording_is_left_out(release):
    corpus = read_corpus("cremad", release)
    assert Skipped("1076_MTI_SAD_XX.wav", "its recording holds no sound") in corpus.skipped
    assert "cremad-1076_MTI_SAD_XX" not in set(corpus.rows["utterance_id"])


def test_recordings_whose_mp3_alone_is_bad_are_kept(release):
    assert row(read_corpus("cremad", release).rows, "1076_MTI_NEU_XX")["label"] == "neutral"


def test_a_git_lfs_pointer_is_listed_and_named_by_the_doctor(release):
    rows = read_corpus("cremad", release).rows
    pointer = rows[rows["utterance_id"] == "cremad-1001_DFA_ANG_XX"]
    assert pointer["audio"].item().endswith("1001_DFA_ANG_XX.wav")
    with pytest.raises(InputError, match="Git LFS pointer"):
        measure(pointer, "cremad")


def test_the_misnamed_recording_of_older_copies_is_read(release):
    found = row(read_corpus("cremad", release).rows, "1040_ITH_SAD_XX")
    assert found["audio"].endswith("1040_ITH_SAD_X.wav") and found["label"] == "sadness" and found["votes"]


def test_foreign_files_are_counted(release):
    assert "1 left out: its name is not CREMA-D's" in read_corpus("cremad", release).notes


def test_recordings_alone_have_neither_votes_nor_gender(release, tmp_path):
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


def test_unknown_words_stop_the_reading(release, tmp_path):
    sound = release / "AudioWAV" / "1001_DFA_HAP_XX.wav"
    (tmp_path / "1001_DFA_JOY_XX.wav").hardlink_to(sound)
    with pytest.raises(InputError, match="cremad-1001_DFA_JOY_XX: label 'JOY'"):
        read_corpus("cremad", tmp_path)
    (tmp_path / "1001_DFA_JOY_XX.wav").rename(tmp_path / "1001_XYZ_HAP_XX.wav")
    with pytest.raises(InputError, match="1001_XYZ_HAP_XX.wav: label 'XYZ'"):
        read_corpus("cremad", tmp_path)
    (tmp_path / "1001_XYZ_HAP_XX.wav").unlink()
    with pytest.raises(InputError, match="no CREMA-D recording"):
        read_corpus("cremad", tmp_path)


def test_a_damaged_table_is_refused(release, tmp_path):
    (tmp_path / "1001_DFA_HAP_XX.wav").hardlink_to(release / "AudioWAV" / "1001_DFA_HAP_XX.wav")
    (tmp_path / "tabulatedVotes.csv").write_text('"","A","D","F","H","N","fileName"\n')
    with pytest.raises(InputError, match="tabulatedVotes.csv: lacks columns .*S.* not in index"):
        read_corpus("cremad", tmp_path)
    (tmp_path / "tabulatedVotes.csv").write_text(
        '"","A","D","F","H","N","S","fileName"\n"100001",0,0,0,NA,9,0,"1001_DFA_HAP_XX"\n'
    )
    with pytest.raises(InputError, match="tabulatedVotes.csv, line 2: a count of votes is no number"):
        read_corpus("cremad", tmp_path)
