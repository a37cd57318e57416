"""The MSP-IMPROV reader, on a synthetic release with the irregularities of the original."""

from collections import Counter
from pathlib import Path

import pytest
from releases.msp_improv import FREE_TEXT, NEITHER, NO_AUDIO, NO_DOMINANCE, RELABELLED, REPEATED, UNRATED, make, names

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import Skipped, read_corpus
from merhan.data.corpora.msp_improv_corpus import ABOUT, read
from merhan.data.protocols import split
from merhan.errors import InputError


TURN = "UTD-IMPROV-S01A-F01-S-FM01.avi; N; A:3.000000; V:3.500000; D:3.000000;\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make(tmp_path_factory.mktemp("msp_improv"))


@pytest.fixture(scope="module")
def corpus(release):
    return read(release)


@pytest.fixture(scope="module")
def rows(corpus):
    return corpus.rows.set_index(corpus.rows["utterance_id"].str.removeprefix("msp_improv-"))


@pytest.fixture
def release_of_one_turn(tmp_path):
    """Write a release of one turn with a transcript and this content of Evalution.txt."""

    def write(text: str) -> Path:
        (tmp_path / "Evalution.txt").write_text(text)
        (tmp_path / "MSP-IMPROV-S01A-F01-S-FM01.txt").write_text("Yes.")
        return tmp_path

    return write


def test_published_counts_add_up():
    assert sum(ABOUT.published.values()) == 8438
    assert sum(ABOUT.published[word] for word in "NHSA") == 7798, "the four classes of the literature"


def test_turns_are_in_the_order_of_their_names(rows):
    assert rows.index.tolist() == sorted(set(names()) - {NEITHER}) and len(rows) == 479


@pytest.mark.parametrize("name", ["Evalution.txt", "Evaluation.txt"])
def test_both_spellings_of_the_table_are_read(name, tmp_path):
    assert len(read(make(tmp_path, table=name)).rows) == 479


def test_recordings_are_named_msp_and_rated_as_utd(release, rows):
    path = release / "Audio" / "session1" / "S01A" / "S" / "MSP-IMPROV-S01A-F01-S-FM01.wav"
    assert rows.loc["S01A-F01-S-FM01", "audio"] == str(path)
    assert measure_recordings(rows.head(5), "x")[0]["duration"].tolist() == [0.1] * 5


def test_labels_are_the_consensus_and_not_the_intended_emotion(rows):
    assert rows.loc[list(RELABELLED), "source_label"].tolist() == list(RELABELLED.values())


def test_other_and_no_agreement_are_left_out(release):
    corpus = read_corpus("msp_improv", release)
    assert set(corpus.rows["label"]) == {"anger", "joy", "sadness", "neutral"}
    assert {"1 left out: label 'O' is not an emotion", "1 left out: label 'X' is not an emotion"} <= set(corpus.notes)


def test_both_actors_are_in_the_same_session(release, rows):
    assert rows["speaker"].nunique() == 12 and rows["session"].nunique() == 6
    assert rows.loc["S01A-F01-S-MF01", ["speaker", "gender"]].tolist() == ["msp_improv-F01", "female"]
    parts, _, _ = split(read_corpus("msp_improv", release).rows, "loso:session", 2)
    assert set(parts.loc[parts["split"] == "test", "speaker"]) == {"msp_improv-F03", "msp_improv-M03"}


def test_only_scripted_turns_have_a_sentence(rows):
    scenario = rows.index.str[9]
    assert set(rows.loc[scenario.isin(["R", "T"]), "sentence"]) == {"msp_improv-S01", "msp_improv-S02"}
    assert set(rows.loc[scenario.isin(["S", "P"]), "sentence"]) == {""}, "these are not scripted"
    emotions = rows[rows["sentence"] == "msp_improv-S01"].index.str[3]
    assert set(emotions) == set("AHSN"), "each sentence occurs in all emotions"


def test_rows_have_no_dialogue_because_the_order_is_unknown(rows):
    assert "turn" not in rows and "dialogue" not in rows


def test_dimensions_may_be_missing(rows):
    assert rows.loc[NO_DOMINANCE, ["valence", "arousal"]].tolist() == [2.75, 4.5]
    assert rows["dominance"].isna().sum() == 1 and rows["dominance"].max() == 3.25
    assert ABOUT.scale == (1, 5)


def test_a_repeated_rating_is_counted_once(corpus, rows):
    assert rows.loc[REPEATED, "votes"] == '{"anger": 3}'
    assert "repeated ratings, which are counted once: 1" in corpus.remarks


def test_free_comments_are_skipped(rows):
    assert rows.loc[FREE_TEXT, "votes"] == '{"anger": 3}', "the comment contains semicolons and latin-1"


def test_votes_for_other_keep_the_source_label(rows):
    assert rows.loc["S02A-F03-S-FM01", "votes"] == '{"Other": 3}'
    assert rows.loc["S02H-M04-S-FM01", "votes"] == '{"neutral": 2, "sadness": 1}'


def test_a_reversed_activation_scale_is_reported(corpus, tmp_path):
    assert not any("arousal" in remark for remark in corpus.remarks)
    reversed_scale = read(make(tmp_path, reversed_scale=True))
    remark = "arousal is 1.50 for anger, 4.00 for sadness, so 1 is very active; use 6 - arousal"
    assert remark in reversed_scale.remarks
    assert reversed_scale.rows["arousal"].min() == 1.5, "the values are not changed"


def test_turns_need_audio_or_text(corpus, rows):
    assert rows.loc[NO_AUDIO, ["audio", "text"]].tolist() == ["", "It\u2019s so lovely."]
    assert corpus.skipped == [
        Skipped(NEITHER, "neither recording nor transcript"),
        Skipped(UNRATED, "recording that nobody evaluated"),
    ]
    assert corpus.remarks[:2] == [
        "1 of 479 turns have no recording",
        "478 of 479 turns have no transcript",
    ]


def test_metadata_files_of_macos_are_not_read(release, corpus):
    assert list(release.rglob("._*"))
    assert Counter(skipped.reason for skipped in corpus.skipped)["recording that nobody evaluated"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TURN.replace("; N;", "; Z;"), "Evalution.txt, line 1: label 'Z' is not in the label table"),
        (TURN + "ab01; Angri; Angry; A:1.0; V:1.0; D:1.0; N:1.0;\n", "line 2: label 'Angri' .*did you mean 'Angry'"),
        (TURN.replace("A:3.000000", "A:high"), "line 1: .* is not UTD-IMPROV-<turn>.avi; label; A:; V:; D:;"),
        (TURN.replace("S01A-F01", "S01Q-F01"), "line 1: .* is not UTD-IMPROV-<turn>.avi"),
        ("ab01; Angry; Angry; A:1.0; V:1.0; D:1.0; N:1.0;\n", "line 1: .* is neither a turn's consensus nor"),
        (TURN + "no line of it\n", "line 2: .* is neither a turn's consensus nor"),
    ],
    ids=["label", "vote", "number", "name", "rater first", "no rating"],
)
def test_errors_name_file_and_line(text, message, release_of_one_turn):
    with pytest.raises(InputError, match=message):
        read(release_of_one_turn(text))


def test_a_folder_without_the_table_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds 0 files Evalution.txt or Evaluation.txt"):
        read(tmp_path)
    (tmp_path / "Evalution.txt").write_text(TURN)
    with pytest.raises(InputError, match="no evaluated turn with a recording or a text"):
        read(tmp_path)
