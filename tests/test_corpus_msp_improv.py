"""MSP-IMPROV's reader, on a synthetic release."""

from collections import Counter
from pathlib import Path

import pytest
from releases.msp_improv import FREE_TEXT, MUTE, NEITHER, NO_DOMINANCE, RELABELLED, TWICE, UNRATED, make, names

from merhan.corpora import Skipped, read_corpus
from merhan.corpora.msp_improv_corpus import ABOUT, read
from merhan.errors import InputError
from merhan.inspection import measure
from merhan.protocols import split


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
def one_file(tmp_path):
    """A release of one turn with words, labelled by the given text."""

    def write(text: str) -> Path:
        (tmp_path / "Evalution.txt").write_text(text)
        (tmp_path / "MSP-IMPROV-S01A-F01-S-FM01.txt").write_text("Yes.")
        return tmp_path

    return write


def test_published_counts_add_up():
    assert sum(ABOUT.published.values()) == 8438
    assert sum(ABOUT.published[word] for word in "NHSA") == 7798, "the four classes of the literature"


def test_every_turn_is_found_in_the_order_of_names(rows):
    assert rows.index.tolist() == sorted(set(names()) - {NEITHER}) and len(rows) == 479


@pytest.mark.parametrize("name", ["Evalution.txt", "Evaluation.txt"])
def test_the_table_is_found_under_both_spellings(name, tmp_path):
    assert len(read(make(tmp_path, table=name)).rows) == 479


def test_sounds_are_named_msp_where_the_table_says_utd(release, rows):
    path = release / "Audio" / "session1" / "S01A" / "S" / "MSP-IMPROV-S01A-F01-S-FM01.wav"
    assert rows.loc["S01A-F01-S-FM01", "audio"] == str(path)
    assert measure(rows.head(5), "x")[0]["duration"].tolist() == [0.1] * 5


def test_labels_are_the_consensus_and_not_the_intended_emotion(rows):
    assert rows.loc[list(RELABELLED), "source_label"].tolist() == list(RELABELLED.values())


def test_other_and_no_agreement_are_left_out(release):
    corpus = read_corpus("msp_improv", release)
    assert set(corpus.rows["label"]) == {"anger", "joy", "sadness", "neutral"}
    assert {"1 left out: label 'O' names no emotion", "1 left out: label 'X' names no emotion"} <= set(corpus.notes)


def test_both_actors_of_a_session_share_it(release, rows):
    assert rows["speaker"].nunique() == 12 and rows["session"].nunique() == 6
    assert rows.loc["S01A-F01-S-MF01", ["speaker", "gender"]].tolist() == ["msp_improv-F01", "female"]
    parts, _, _ = split(read_corpus("msp_improv", release).rows, "loso:session", 2)
    assert set(parts.loc[parts["split"] == "test", "speaker"]) == {"msp_improv-F03", "msp_improv-M03"}


def test_only_what_recurs_is_a_sentence(rows):
    scenario = rows.index.str[9]
    assert set(rows.loc[scenario.isin(["R", "T"]), "sentence"]) == {"msp_improv-S01", "msp_improv-S02"}
    assert set(rows.loc[scenario.isin(["S", "P"]), "sentence"]) == {""}, "what is said there is free"
    emotions = rows[rows["sentence"] == "msp_improv-S01"].index.str[3]
    assert set(emotions) == set("AHSN"), "one sentence in all emotions, so that words do not tell them"


def test_no_order_of_turns_is_invented(rows):
    assert "turn" not in rows and "dialogue" not in rows


def test_dimensions_may_be_missing(rows):
    assert rows.loc[NO_DOMINANCE, ["valence", "arousal"]].tolist() == [2.75, 4.5]
    assert rows["dominance"].isna().sum() == 1 and rows["dominance"].max() == 3.25
    assert ABOUT.scale == (1, 5)


def test_a_rating_that_stands_twice_counts_once(corpus, rows):
    assert rows.loc[TWICE, "votes"] == '{"anger": 3}'
    assert "ratings that stand twice and count once: 1" in corpus.remarks


def test_free_text_does_not_end_the_reading(rows):
    assert rows.loc[FREE_TEXT, "votes"] == '{"anger": 3}', "semicolons and latin-1 in a rater's second answer"


def test_votes_for_other_keep_the_corpus_own_word(rows):
    assert rows.loc["S02A-F03-S-FM01", "votes"] == '{"Other": 3}'
    assert rows.loc["S02H-M04-S-FM01", "votes"] == '{"neutral": 2, "sadness": 1}'


def test_activation_that_runs_downwards_is_told(corpus, tmp_path):
    assert not any("arousal" in remark for remark in corpus.remarks)
    downwards = read(make(tmp_path, downwards=True))
    assert "arousal is 1.50 for anger, 4.00 for sadness, so 1 is very active; take 6 - arousal" in downwards.remarks
    assert downwards.rows["arousal"].min() == 1.5, "the numbers stay as the corpus gives them"


def test_one_modality_is_enough_and_none_is_not(corpus, rows):
    assert rows.loc[MUTE, ["audio", "text"]].tolist() == ["", "It\u2019s so lovely."]
    assert corpus.skipped == [
        Skipped(NEITHER, "neither recording nor transcript"),
        Skipped(UNRATED, "recording that nobody evaluated"),
    ]
    assert corpus.remarks[:2] == [
        "1 of 479 turns have text alone: no recording found",
        "478 of 479 turns have no transcript",
    ]


def test_macos_shadow_files_are_not_read(release, corpus):
    assert list(release.rglob("._*"))
    assert Counter(one.reason for one in corpus.skipped)["recording that nobody evaluated"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TURN.replace("; N;", "; Z;"), "Evalution.txt, line 1: label 'Z' is not in the table"),
        (TURN + "ab01; Angri; Angry; A:1.0; V:1.0; D:1.0; N:1.0;\n", "line 2: label 'Angri' .*did you mean 'Angry'"),
        (TURN.replace("A:3.000000", "A:high"), "line 1: .* is not UTD-IMPROV-<turn>.avi; label; A:; V:; D:;"),
        (TURN.replace("S01A-F01", "S01Q-F01"), "line 1: .* is not UTD-IMPROV-<turn>.avi"),
        ("ab01; Angry; Angry; A:1.0; V:1.0; D:1.0; N:1.0;\n", "line 1: .* is neither a turn's consensus nor"),
        (TURN + "no line of it\n", "line 2: .* is neither a turn's consensus nor"),
    ],
    ids=["label", "vote", "number", "name", "rater first", "no rating"],
)
def test_what_cannot_be_read_names_file_and_line(text, message, one_file):
    with pytest.raises(InputError, match=message):
        read(one_file(text))


def test_a_folder_without_the_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds 0 files Evalution.txt or Evaluation.txt"):
        read(tmp_path)
    (tmp_path / "Evalution.txt").write_text(TURN)
    with pytest.raises(InputError, match="no evaluated turn with a recording or words"):
        read(tmp_path)
