"""The IEMOCAP reader, on a synthetic release of full size."""

import json
from collections import Counter

import pytest
from releases.iemocap import COUNTS, HEADER, dialogue_names, make

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.iemocap_corpus import ABOUT, read
from merhan.data.dataset import dialogue_context
from merhan.data.manifest import is_context_only
from merhan.data.protocols import split
from merhan.errors import InputError


FOUR = {"excitement": "joy", "frustration": None, "surprise": None, "fear": None, "disgust": None}
TURN = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 3.0000, 3.5000]\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make(tmp_path_factory.mktemp("iemocap"))


@pytest.fixture(scope="module")
def corpus(release):
    return read(release)


@pytest.fixture(scope="module")
def rows(corpus):
    return corpus.rows.set_index("utterance_id")


@pytest.fixture
def release_of_one_file(tmp_path):
    """Write a release that consists of one EmoEvaluation file."""

    def write(text: str):
        folder = tmp_path / "Session1" / "dialog" / "EmoEvaluation"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Ses01F_impro01.txt").write_text(HEADER + text)
        return tmp_path

    return write


def test_counts_are_the_published_ones(rows):
    assert len(rows) == 10_039 == sum(ABOUT.published.values())
    assert rows["source_label"].value_counts().to_dict() == ABOUT.published
    improvised = rows["dialogue"].str.contains("impro")
    assert improvised.sum() == 4784 and (~improvised).sum() == 5255


def test_four_classes_per_session(release):
    rows = read_corpus("iemocap", release, FOUR).rows
    counts = {"neutral": 1708, "joy": 1636, "anger": 1103, "sadness": 1084}
    assert rows["label"].value_counts().to_dict() == counts | {"": 10_039 - 5531}, "the other turns stay as context"
    rows = rows[rows["label"] != ""]
    table = rows.groupby(["session", "label"]).size().unstack()
    assert table["joy"].tolist() == [278, 327, 286, 303, 442]
    assert table["neutral"].tolist() == [384, 362, 320, 258, 384]
    assert table["anger"].tolist() == [229, 137, 240, 327, 170]
    assert table["sadness"].tolist() == [194, 197, 305, 143, 245]
    assert table.sum(axis=1).tolist() == [1085, 1023, 1151, 1031, 1241]


def test_happiness_and_excitement_are_separate_by_default(release):
    rows = read_corpus("iemocap", release).rows
    joy, excitement = (rows[rows["label"] == label].groupby("session").size() for label in ("joy", "excitement"))
    assert joy.tolist() == [counts["hap"] for counts in COUNTS.values()]
    assert excitement.tolist() == [counts["exc"] for counts in COUNTS.values()]
    assert (rows["label"] == "frustration").sum() == 1849, "frustration is not merged into anger"


def test_style_selects_improvised_or_scripted_dialogues(release):
    for style, turns in (("improvised", 2943), ("scripted", 2588)):
        corpus = read_corpus("iemocap", release, FOUR, style=style)
        assert (corpus.rows["label"] != "").sum() == turns
        assert any(note.endswith(f"left out: dialogue that is not {style}") for note in corpus.notes)
    with pytest.raises(InputError, match="unknown style 'improvized'; did you mean 'improvised'"):
        read(release, style="improvized")


def test_the_speaker_is_in_the_last_field_of_the_turn(rows):
    actors = [f"iemocap-Ses0{number}{actor}" for number in range(1, 6) for actor in "FM"]
    assert sorted(rows["speaker"].unique()) == actors
    turn = rows.loc["iemocap-Ses01F_impro01_M000"]
    assert (turn["speaker"], turn["gender"]) == ("iemocap-Ses01M", "male")
    assert (rows["gender"] == rows.index.str[-4].map({"F": "female", "M": "male"})).all()


def test_both_actors_are_in_the_same_session(release, rows):
    assert rows.groupby("session")["speaker"].nunique().to_dict() == {f"iemocap-Ses0{n}": 2 for n in range(1, 6)}
    turns = read_corpus("iemocap", release, FOUR).rows
    parts, _, _ = split(turns[~is_context_only(turns)], "loso:session", 4)
    speakers = {part: set(group["speaker"]) for part, group in parts.groupby("split")}
    assert speakers["test"] == {"iemocap-Ses05F", "iemocap-Ses05M"} and not speakers["test"] & speakers["train"]


def test_the_dialogue_is_the_id_without_its_last_field(rows):
    names = [name for session in COUNTS for style in (True, False) for name in dialogue_names(session, style)]
    assert set(rows["dialogue"]) == {f"iemocap-{name}" for name in names} and len(set(names)) == 151
    assert rows.loc["iemocap-Ses03M_impro05a_F000", "dialogue"] == "iemocap-Ses03M_impro05a"
    assert rows.loc["iemocap-Ses05M_script01_1b_F000", "dialogue"] == "iemocap-Ses05M_script01_1b"


def test_turns_are_in_chronological_order(rows):
    dialogue = rows[rows["dialogue"] == "iemocap-Ses01F_impro02"]
    assert dialogue["turn"].tolist() == list(range(len(dialogue)))
    assert dialogue.index[:3].str[-4:].tolist() == ["F000", "M000", "F001"]
    context = dialogue_context(rows.reset_index(), 2)["iemocap-Ses01F_impro02_F001"]
    assert [turn["speaker"] for turn in context] == ["iemocap-Ses01F", "iemocap-Ses01M"]


def test_texts_are_joined_by_id_although_times_differ(rows):
    assert (rows["text"] != "").all()
    assert rows.loc["iemocap-Ses01F_impro01_F000", "text"] == "I know what it said: nothing."


def test_texts_may_contain_colons_and_brackets(rows):
    assert rows.loc["iemocap-Ses01F_impro01_M000", "text"] == "He [M]: no: go."


def test_a_line_without_times_is_read(rows):
    assert rows.loc["iemocap-Ses01F_impro01_F001", "text"] == "No times here."


def test_transcript_lines_without_id_or_evaluation_are_counted(corpus, rows):
    reasons = Counter(skipped.reason for skipped in corpus.skipped)
    assert reasons == {"transcript line without a turn's id": 2, "transcript of a turn that nobody evaluated": 2}
    items = {skipped.item for skipped in corpus.skipped}
    assert {"Ses01F_impro01_MXX0", "Ses01F_impro01_FXX0"} < items
    assert not rows.index.str.contains("XX").any()


def test_a_latin1_transcript_is_read(rows):
    # 0x85 within a line does not end it.
    assert rows.loc["iemocap-Ses05M_script02_1_F001", "text"] == "The caf\u00e9\x85 shut."


def test_metadata_files_of_macos_are_not_read(release, rows):
    metadata = list(release.rglob("._*"))
    assert len(metadata) == 3 and not rows["audio"].str.contains("/._", regex=False).any()


def test_files_of_single_raters_are_not_read(release, rows):
    folder = release / "Session1" / "dialog" / "EmoEvaluation"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert names == ["Attribute", "Categorical", "Self-evaluation"]
    assert rows.loc["iemocap-Ses01F_impro01_F000", "source_label"] == "neu", "they say sadness and fear"


def test_votes_are_of_the_raters_only(rows):
    """In the release every self-evaluation is surprise, and every comment mentions happiness."""
    votes = rows["votes"].map(json.loads)
    surprised = votes.map(lambda counts: "surprise" in counts)
    assert (surprised == (rows["source_label"] == "sur")).all()
    assert (votes.map(lambda counts: "joy" in counts) == (rows["source_label"] == "hap")).all()


def test_a_rater_may_choose_several_labels(rows):
    assert rows.loc["iemocap-Ses01F_impro01_F000", "votes"] == '{"anger": 1, "frustration": 1, "neutral": 2}'


def test_votes_for_other_keep_the_source_label(rows):
    assert set(rows.loc[rows["source_label"] == "oth", "votes"]) == {'{"Other": 3}'}


def test_dimensions_are_valence_activation_dominance(rows):
    assert rows[["valence", "arousal", "dominance"]].drop_duplicates().to_numpy().tolist() == [[2.5, 3.0, 3.5]]
    assert ABOUT.scale == (1, 5)


def test_recordings_are_single_turns(rows):
    assert "start" not in rows and "end" not in rows
    assert measure_recordings(rows.reset_index().head(20), "iemocap")[0]["duration"].tolist() == [0.1] * 20
    assert rows.loc["iemocap-Ses01F_impro01_M000", "audio"].endswith("wav/Ses01F_impro01/Ses01F_impro01_M000.wav")


def test_the_folder_above_the_release_can_be_read(release, rows):
    assert read(release.parent).rows["utterance_id"].tolist() == rows.index.tolist()


def test_a_turn_without_a_recording_has_text_only(release_of_one_file):
    source = release_of_one_file(TURN + TURN.replace("F000", "F001"))
    with pytest.raises(InputError, match="no evaluated turn with a recording or a text"):
        read(source)
    (source / "Session1" / "dialog" / "transcriptions").mkdir()
    transcript = source / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt"
    transcript.write_text("Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n" * 2)
    corpus = read(source)
    assert corpus.rows["text"].tolist() == ["Excuse me."] and corpus.rows["audio"].tolist() == [""]
    assert [skipped.reason for skipped in corpus.skipped] == [
        "second transcript of a turn",
        "neither recording nor transcript",
    ]
    assert corpus.remarks == ["1 of 1 turns have no recording"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TURN.replace("neu", "joy"), "Ses01F_impro01.txt, line 3: label 'joy' is not in the label table"),
        (TURN + "C-E1:\tNeutrall;\t()\n", "line 4: label 'Neutrall' .*did you mean 'Neutral'"),
        (TURN.replace("\t", " "), "line 3: .* is not .start - end., turn, label"),
        (TURN.replace("_F000", "_X000"), "line 3: .* is not .start - end., turn, label"),
        ("C-E1:\tNeutral;\t()\n", "line 3: a rater's line before any turn"),
    ],
    ids=["unknown label", "unknown vote", "no tabs", "no actor", "no turn"],
)
def test_errors_name_file_and_line(text, message, release_of_one_file):
    with pytest.raises(InputError, match=message):
        read(release_of_one_file(text))


def test_a_folder_without_iemocap_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no Session1/dialog/EmoEvaluation"):
        read(tmp_path)
