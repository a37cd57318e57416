"""The MSP-Podcast reader, on synthetic releases in the layouts of several versions."""

import json
from collections import Counter
from pathlib import Path

import pytest
from releases.msp_podcast import COLUMNS, NEITHER, NO_RECORDING, NO_TRANSCRIPT, STEREO, TURNS, make, write_table

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import Skipped, read_corpus
from merhan.data.corpora.msp_podcast_corpus import ABOUT, read
from merhan.data.protocols import split
from merhan.errors import InputError


FIRST = "msp_podcast-MSP-PODCAST_0001_0008"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make(tmp_path_factory.mktemp("msp_podcast"))


@pytest.fixture(scope="module")
def corpus(release):
    return read(release)


@pytest.fixture(scope="module")
def rows(corpus):
    return corpus.rows.set_index("utterance_id")


@pytest.fixture
def release_of_one_turn(tmp_path):
    """Write a release of one turn, some of whose cells are replaced."""

    def write(**cells: str) -> Path:
        turn = dict(zip(COLUMNS, TURNS[0], strict=True)) | cells
        (tmp_path / "Transcripts").mkdir()
        (tmp_path / "Transcripts" / f"{turn['FileName'].removesuffix('.wav')}.txt").write_text("Yes.")
        write_table(tmp_path / "labels_consensus.csv", tuple(turn), [tuple(turn.values())])
        return tmp_path

    return write


def test_turns_are_in_the_order_of_their_names(rows):
    assert rows.index.is_monotonic_increasing and len(rows) == 11
    assert rows.loc[FIRST, ["valence", "arousal", "dominance"]].tolist() == [4.0, 2.2, 2.6]
    assert rows.loc[FIRST, ["speaker", "session"]].tolist() == ["msp_podcast-30", "msp_podcast-0001"]
    assert rows.loc[FIRST, "gender"] == "male" and rows["gender"].value_counts()["female"] == 5
    assert rows.loc[FIRST, "text"] == "It\u2019s what 0008 said."
    assert ABOUT.scale == (1, 7)


def test_other_and_no_agreement_are_left_out(release):
    corpus = read_corpus("msp_podcast", release)
    assert corpus.rows["label"].value_counts().to_dict() == {"joy": 2} | dict.fromkeys(
        ("neutral", "anger", "sadness", "surprise", "fear", "disgust", "contempt"), 1
    )
    assert {"1 left out: label 'O' is not an emotion", "1 left out: label 'X' is not an emotion"} <= set(corpus.notes)


@pytest.mark.parametrize("name", ["labels_consensus.csv", "labels_concensus.csv"])
def test_both_spellings_of_the_table_are_read(name, tmp_path, rows):
    assert read(make(tmp_path, consensus=name)).rows["source_label"].tolist() == rows["source_label"].tolist()


@pytest.mark.parametrize("word", ["Development", "Validation"])
def test_both_names_of_the_validation_split_are_read(word, tmp_path):
    rows = read(make(tmp_path, validation=word)).rows
    assert rows["split"].value_counts().to_dict() == {"train": 7, "validation": 2, "test": 2}


def test_the_option_tests_selects_the_test_sets(release, corpus):
    reasons = Counter(skipped.reason for skipped in corpus.skipped)
    assert reasons["of a test set that data.options.tests does not name"] == 2, "one of Test2, one of Test3"
    second = read(release, tests="Test2").rows
    assert second.loc[second["split"] == "test", "utterance_id"].tolist() == ["msp_podcast-MSP-PODCAST_0006_0001"]
    assert (read(release, tests=["Test1", "Test2"]).rows["split"] == "test").sum() == 3
    with pytest.raises(InputError, match="unknown test set 'Test4'"):
        read(release, tests=["Test4"])


def test_withheld_labels_are_counted(release, corpus):
    assert Skipped("MSP-PODCAST_test3_0002.wav", "recording without labels, like those of Test3") in corpus.skipped
    third = read(release, tests=["Test1", "Test3"])
    assert Skipped("MSP-PODCAST_test3_0001.wav", "labels of Test3 are withheld") in third.skipped
    assert not third.rows["utterance_id"].str.contains("test3").any()


def test_an_unknown_speaker_is_empty(release, corpus, rows):
    assert rows.loc[f"msp_podcast-{NO_TRANSCRIPT}", ["speaker", "gender"]].tolist() == ["", ""]
    assert "1 of 11 turns have an unknown speaker, so no split of them is speaker-independent" in corpus.remarks
    with pytest.raises(InputError, match="needs a speaker in every row"):
        split(read_corpus("msp_podcast", release).rows, "loso:speaker", 0)


def test_an_earlier_version_is_not_read(corpus, rows):
    assert rows.loc[FIRST, "source_label"] == "N"
    assert json.loads(rows.loc[FIRST, "votes"]) == {"Other": 1, "neutral": 2}
    assert not any("0009_0001" in skipped.item for skipped in corpus.skipped), "removed recordings are not part of it"
    assert not rows["audio"].str.contains("Previous").any()


def test_an_earlier_version_can_be_read_from_its_own_folder(tmp_path):
    folder = make(tmp_path) / "Previous_releases_information" / "previous_releases_info" / "v1.10"
    (folder / "Transcripts").mkdir()
    (folder / "Transcripts" / "MSP-PODCAST_0001_0008.txt").write_text("Yes.")
    assert read(folder).rows["source_label"].tolist() == ["S"]


@pytest.mark.parametrize("kind", ["detail", "columns"])
def test_votes_are_of_primary_emotions_in_both_layouts(kind, tmp_path):
    rows = read(make(tmp_path, detailed=kind)).rows.set_index("utterance_id")
    assert rows.loc[FIRST, "votes"] == '{"Other": 1, "neutral": 2}'
    assert set(rows["votes"].drop(FIRST)) == {'{"contempt": 1, "joy": 2}'}, "secondary emotions are not votes"


def test_free_text_after_other_is_ignored(rows):
    assert "Other-dry" not in rows.loc[FIRST, "votes"]
    assert json.loads(rows.loc[FIRST, "votes"])["Other"] == 1


@pytest.mark.parametrize("name", ["Labels.txt", "labels.txt"])
def test_without_a_table_the_raw_file_is_read(name, tmp_path, rows):
    corpus = read(make(tmp_path, consensus=None, detailed=None, raw=name))
    raw = corpus.rows.set_index("utterance_id")
    columns = ["text", "source_label", "valence", "arousal", "dominance", "votes"]
    both = raw.index.intersection(rows.index)
    assert len(both) == 11 and raw.loc[both, columns].equals(rows.loc[both, columns])
    assert set(raw["speaker"]) == {""} and set(raw["split"]) == {""}, "it has neither"
    assert "12 of 12 turns have an unknown speaker, so no split of them is speaker-independent" in corpus.remarks


def test_without_a_table_of_ratings_the_raw_file_has_the_votes(tmp_path, rows):
    raw = read(make(tmp_path, detailed=None, raw="labels.txt")).rows
    assert raw["votes"].tolist() == rows["votes"].tolist()


def test_without_ratings_there_are_no_votes(tmp_path):
    assert set(read(make(tmp_path, detailed=None)).rows["votes"]) == {""}


def test_turns_need_audio_or_text(corpus, rows):
    text_only, audio_only = rows.loc[f"msp_podcast-{NO_RECORDING}"], rows.loc[f"msp_podcast-{NO_TRANSCRIPT}"]
    assert not text_only["audio"] and text_only["text"]
    assert audio_only["audio"] and not audio_only["text"]
    assert Skipped(f"{NEITHER}.wav", "neither recording nor transcript") in corpus.skipped
    assert "1 of 11 turns have no recording" in corpus.remarks


def test_the_stereo_recording_is_read(rows):
    measured, _ = measure_recordings(rows.loc[[f"msp_podcast-{STEREO}", FIRST]].reset_index(), "x")
    assert measured["duration"].tolist() == pytest.approx([1600 / 44_100, 0.1])


def test_metadata_files_of_macos_are_not_read(release, corpus, rows):
    assert list(release.rglob("._*")) and not rows["audio"].str.contains("/._", regex=False).any()
    assert not any(skipped.item.startswith("._") for skipped in corpus.skipped)


def test_leading_zeros_of_speaker_numbers_are_kept(release_of_one_turn):
    assert read(release_of_one_turn(SpkrID="0030")).rows["speaker"].tolist() == ["msp_podcast-0030"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"EmoClass": "Z"}, "0002_0033: label 'Z' is not in the label table"),
        ({"Split_Set": "Dev"}, "consensus.csv, .*0002_0033.wav, Split_Set: label 'Dev' .*did you mean 'Development'"),
        ({"Gender": "male"}, "consensus.csv, .*0002_0033.wav, Gender: label 'male' is not in the label table"),
        ({"EmoAct": "high"}, "0002_0033.wav: 'high' is not a number from 1 to 7"),
        ({"FileName": "podcast.wav"}, "podcast.wav: is not a name of MSP-Podcast"),
    ],
    ids=["class", "split", "gender", "number", "name"],
)
def test_errors_name_table_and_recording(cells, message, release_of_one_turn):
    with pytest.raises(InputError, match=message):
        read_corpus("msp_podcast", release_of_one_turn(**cells))


def test_an_unknown_label_of_a_rater_is_an_error(release_of_one_turn):
    source = release_of_one_turn()
    file = source / "labels_detailed.csv"
    write_table(file, ("FileName", "EmoDetail"), [(TURNS[0], "WORKER1; Hapy; A:4; V:4; D:4;")])
    with pytest.raises(InputError, match="labels_detailed.csv, line 2: label 'Hapy' .*did you mean 'Happy'"):
        read(source)


def test_a_malformed_line_of_the_raw_file_is_an_error(tmp_path):
    (tmp_path / "Labels.txt").write_text("MSP-PODCAST_0001_0008.wav N A:2.2\n")
    with pytest.raises(InputError, match="Labels.txt, line 1: neither a turn's consensus nor a rater's line"):
        read(tmp_path)


def test_a_table_without_a_column_is_an_error(tmp_path):
    write_table(tmp_path / "labels_consensus.csv", COLUMNS[:-1], [TURNS[0][:-1]])
    with pytest.raises(InputError, match="lacks the column 'Split_Set'"):
        read(tmp_path)


def test_a_folder_without_labels_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no labels_consensus.csv or Labels.txt"):
        read(tmp_path)


def test_two_versions_in_one_folder_are_an_error(tmp_path):
    make(tmp_path / "one")
    make(tmp_path / "other")
    with pytest.raises(InputError, match="give the folder of one version"):
        read(tmp_path)
