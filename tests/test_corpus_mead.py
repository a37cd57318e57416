"""The MEAD reader, on a synthetic release with the irregularities of the original."""

from pathlib import Path

import pandas as pd
import pytest
from releases import mead

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.mead_corpus import ABOUT
from merhan.errors import InputError


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return mead.make(tmp_path_factory.mktemp("mead") / "MEAD")


@pytest.fixture(scope="module")
def corpus(release):
    return read_corpus("mead", release)


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory) -> Path:
    """Texts of the common and generic sentences, and of the specific ones of contempt and sad."""
    lines = [f",{number},Common or generic {number}." for number in range(1, 14)]
    lines += [f"{word},{number},{word} {number}." for word in ("contempt", "sad") for number in range(14, 31)]
    path = tmp_path_factory.mktemp("mead") / "sentences.csv"
    path.write_text("\n".join(["emotion,sentence,text", *lines]) + "\n")
    return path


def row(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows.set_index("utterance_id").loc[f"mead-{name}"]


def test_rows_of_the_synthetic_release(corpus):
    rows = corpus.rows
    assert len(rows) == 2 * 670 - 1 - 4 - 4
    assert rows["label"].value_counts().to_dict() == {
        "anger": 180, "disgust": 180, "fear": 180, "joy": 180, "surprise": 180, "contempt": 179, "sadness": 176,
        "neutral": 76,
    }  # fmt: skip
    assert rows.groupby("speaker")["gender"].first().to_dict() == {"mead-M003": "male", "mead-W009": "female"}
    assert set(rows["source_label"]) == set(ABOUT.published) and sum(ABOUT.published.values()) == 31_729


def test_common_and_generic_sentences_are_shared_across_emotions(corpus):
    rows = corpus.rows
    shared = rows.groupby("sentence")["label"].nunique()
    assert set(shared[shared == 8].index) == {f"mead-common-{number:02d}" for number in (1, 2, 3)} | {
        f"mead-generic-{number:02d}" for number in range(4, 14)
    }
    assert set(shared.unique()) == {1, 8}
    assert row(rows, "M003-angry-level_3-014")["sentence"] == "mead-angry-014"
    assert row(rows, "M003-neutral-level_1-040")["sentence"] == "mead-neutral-040"
    assert len(shared) == 13 + 7 * 17 + 27


def test_m4a_of_both_sampling_rates_is_decoded(corpus):
    rows = corpus.rows.groupby("speaker").head(3)
    assert measure_recordings(rows, "mead")[0]["duration"].between(0.09, 0.2).all()


def test_without_transcripts_there_is_no_text_and_a_remark(corpus):
    assert set(corpus.rows["text"]) == {""}
    assert corpus.remarks[-1].startswith("1331 of 1331 rows have no text: the archive has none")


def test_transcripts_are_by_emotion_and_sentence(release, transcripts):
    rows = read_corpus("mead", release, transcripts=transcripts).rows
    assert row(rows, "M003-sad-level_1-014")["text"] == "sad 14."
    assert row(rows, "M003-contempt-level_1-014")["text"] == "contempt 14."
    assert row(rows, "M003-fear-level_1-014")["text"] == "", "not the text of another emotion"
    assert set(rows.loc[rows["sentence"] == "mead-generic-04", "text"]) == {"Common or generic 4.", ""}


def test_sets_that_lack_recordings_are_counted_and_have_no_text(release, corpus, transcripts):
    """Which recording is missing is unknown, because the others may have been renumbered."""
    assert corpus.remarks[0].startswith("65 of 1331 rows are of sets that end before their list:")
    rows = read_corpus("mead", release, transcripts=transcripts).rows
    incomplete = rows[rows["utterance_id"].str.startswith("mead-M003-contempt-level_2")]
    assert len(incomplete) == 29 and set(incomplete["text"]) == {""}
    assert row(rows, "W009-neutral-level_1-001")["text"] == "", "36 of the longer list"
    assert row(rows, "M003-neutral-level_1-001")["text"] == "Common or generic 1."
    with_gaps = rows[rows["utterance_id"].str.startswith("mead-W009-sad-level_2")]
    assert len(with_gaps) == 26 and (with_gaps["text"] != "").all(), "a set with gaps was not renumbered"


def test_other_files_are_counted_and_video_is_not_read(corpus):
    assert "1 left out: its path is not a MEAD path" in corpus.notes
    assert corpus.rows["audio"].str.endswith(".m4a").all()


def test_an_unknown_emotion_is_an_error(release, tmp_path):
    place = tmp_path / "M003" / "audio" / "bored" / "level_1"
    place.mkdir(parents=True)
    with pytest.raises(InputError, match="no MEAD recording"):
        read_corpus("mead", tmp_path)
    (place / "001.m4a").hardlink_to(release.parent / "48000.m4a")
    with pytest.raises(InputError, match="mead-M003-bored-level_1-001: label 'bored'"):
        read_corpus("mead", tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["emotion,number,text"], "lacks the column sentence"),
        (["emotion,sentence,text", "anger,14,no"], "line 2: unknown emotion 'anger'"),
        (["emotion,sentence,text", "angry,fourteen,no"], "line 2: sentence 'fourteen' is not a number"),
        (["emotion,sentence,text", ",13,yes", ",14,no"], "line 3: sentence '14' is specific to an emotion"),
        (["emotion,sentence,text", "sad,14,yes", "sad,014,no"], "line 3: the sentence is listed twice"),
    ],
)
def test_malformed_transcripts_are_errors(lines, message, release, tmp_path):
    (tmp_path / "sentences.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        read_corpus("mead", release, transcripts=tmp_path / "sentences.csv")
