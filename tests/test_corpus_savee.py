"""The SAVEE reader, on synthetic releases in both layouts."""

import pytest
from releases import savee, tiny_sounds

from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.savee_corpus import ABOUT
from merhan.errors import InputError


def test_both_layouts_give_the_same_rows(tmp_path):
    original, flat = (read_corpus("savee", savee.make(tmp_path / layout, layout)) for layout in ("original", "flat"))
    columns = [column for column in original.rows if column != "audio"]
    assert original.rows[columns].equals(flat.rows[columns])
    for corpus in (original, flat):
        assert corpus.rows["source_label"].value_counts().to_dict() == dict(ABOUT.published)
        assert len(corpus.rows) == 480 and not corpus.skipped
    assert flat.rows["audio"].iloc[0] == str(tmp_path / "flat" / "ALL" / "DC_a01.wav")
    assert original.rows["audio"].iloc[0] == str(tmp_path / "original" / "AudioData" / "DC" / "a01.wav")


def test_a_row(tmp_path):
    rows = read_corpus("savee", savee.make(tmp_path)).rows
    row = rows.set_index("utterance_id").loc["savee-JE_n23"]
    assert (row["label"], row["speaker"], row["gender"]) == ("neutral", "savee-JE", "male")
    assert row["sentence"] == "savee-n23" and row["language"] == "en"
    assert rows["speaker"].value_counts().to_dict() == dict.fromkeys(
        ("savee-DC", "savee-JE", "savee-JK", "savee-KL"), 120
    )
    assert (rows.groupby("sentence")["speaker"].nunique() == 4).all()


def test_sadness_and_surprise_have_two_letters(tmp_path):
    rows = read_corpus("savee", savee.make(tmp_path, "flat")).rows.set_index("utterance_id")
    assert rows.loc["savee-KL_sa01", "label"] == "sadness" and rows.loc["savee-KL_su01", "label"] == "surprise"
    assert rows.loc["savee-KL_a01", "label"] == "anger"


def test_rows_have_no_text_and_a_remark_says_so(tmp_path):
    corpus = read_corpus("savee", savee.make(tmp_path))
    assert (corpus.rows["text"] == "").all()
    assert corpus.notes == [
        "no row has text: the sentences are from TIMIT, and the archive does not contain their texts"
    ]


def test_both_layouts_side_by_side_are_read_once(tmp_path):
    for layout in ("original", "flat"):
        savee.make(tmp_path / layout, layout)
    corpus = read_corpus("savee", tmp_path)
    assert len(corpus.rows) == 480 and corpus.notes[0] == "480 left out: a copy of a recording in another folder"


def test_metadata_files_of_macos_are_not_read(tmp_path):
    savee.make(tmp_path)
    (tmp_path / "AudioData" / "DC" / "._a01.wav").write_bytes(b"Mac OS X")
    corpus = read_corpus("savee", tmp_path)
    assert len(corpus.rows) == 480 and corpus.notes[0] == "1 left out: metadata that macOS wrote beside a recording"


@pytest.mark.parametrize(
    "name", ["AudioData/XY/a01.wav", "ALL/a01.wav", "ALL/DC_a1.wav", "ALL/DC_a001.wav", "hello.wav"]
)
def test_a_recording_without_speaker_or_sentence_is_an_error(name, tmp_path):
    tiny_sounds.write(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: a SAVEE recording is speaker, emotion and sentence"):
        read_corpus("savee", tmp_path)


def test_an_unknown_emotion_is_an_error(tmp_path):
    tiny_sounds.write(tmp_path / "ALL" / "DC_x01.wav")
    with pytest.raises(InputError, match="savee-DC_x01: label 'x'"):
        read_corpus("savee", tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no SAVEE recording"):
        read_corpus("savee", tmp_path)
