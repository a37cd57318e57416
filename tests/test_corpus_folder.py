"""The reader of the user's own recordings in folders named after labels."""

import pytest
from releases import folder, tiny_sounds

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.errors import InputError


def test_folders_are_labels(tmp_path):
    rows = read_corpus("folder", folder.make(tmp_path / "mine")).rows
    assert rows["label"].tolist() == ["anger", "joy", "joy"] and "split" not in rows and "speaker" not in rows
    assert rows["utterance_id"].tolist() == ["mine-anger/sub/anna_03", "mine-joy/anna_01", "mine-joy/ben_02"]
    assert set(rows["corpus"]) == {"mine"}
    assert rows["audio"].iloc[0] == str(tmp_path / "mine" / "anger" / "sub" / "anna_03.flac")
    assert measure_recordings(rows, "mine")[0]["duration"].tolist() == [0.1] * 3


def test_split_folders_above_label_folders(tmp_path):
    rows = read_corpus("folder", folder.make(tmp_path / "mine", splits=True)).rows
    assert rows["split"].tolist() == ["train"] * 3 + ["validation"] * 3
    assert rows["label"].tolist() == ["anger", "joy", "joy"] * 2


def test_splits_beside_labels_are_an_error(tmp_path):
    folder.make(tmp_path / "mine")
    tiny_sounds.write(tmp_path / "mine" / "test" / "joy" / "x.wav")
    with pytest.raises(InputError, match="'test' is the name of a split and 'anger' is not"):
        read_corpus("folder", tmp_path / "mine")


@pytest.mark.parametrize("splits", [False, True])
def test_a_recording_outside_of_the_label_folders_is_an_error(splits, tmp_path):
    folder.make(tmp_path / "mine", splits)
    tiny_sounds.write(tmp_path / "mine" / ("Train" if splits else "") / "x.wav")
    with pytest.raises(InputError, match="x.wav: is not in a label's folder"):
        read_corpus("folder", tmp_path / "mine")


def test_transcripts_are_beside_the_recordings(tmp_path):
    folder.make(tmp_path / "mine")
    (tmp_path / "mine" / "joy" / "carla_04.txt").write_text("Nobody recorded this.")
    corpus = read_corpus("folder", tmp_path / "mine")
    # The transcript begins with a byte order mark, as editors of Windows write it.
    assert corpus.rows["text"].tolist() == ["", "I am glad.", ""]
    assert corpus.notes == [
        "1 left out: a transcript without a recording",
        "2 of 3 rows have no text: there is no .txt file beside them",
    ]


def test_a_transcript_that_is_not_utf8_is_an_error(tmp_path):
    folder.make(tmp_path / "mine")
    (tmp_path / "mine" / "joy" / "ben_02.txt").write_bytes("Schön.".encode("latin-1"))
    with pytest.raises(InputError, match="ben_02.txt: is not UTF-8"):
        read_corpus("folder", tmp_path / "mine")


def test_other_files_are_counted(tmp_path):
    folder.make(tmp_path / "mine")
    for name in ("joy/._anna_01.wav", ".cache/x.wav", "README.md", "joy/notes.pdf"):
        (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / name).touch()
    corpus = read_corpus("folder", tmp_path / "mine")
    assert len(corpus.rows) == 3
    assert corpus.notes[:2] == ["2 left out: a hidden file", "2 left out: neither a recording nor a transcript"]


def test_speakers_by_a_pattern(tmp_path):
    folder.make(tmp_path / "mine")
    rows = read_corpus("folder", tmp_path / "mine", speaker_pattern=r"/(?P<speaker>[a-z]+)_\d+\.").rows
    assert rows["speaker"].tolist() == ["mine-anna", "mine-anna", "mine-ben"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<speaker>", "is not a regular expression"),
        ("([a-z]+)_", "lacks the group"),
        ("(?P<speaker>ben)_", "anna_03.flac: .* finds no speaker in 'anger/sub/anna_03.flac'"),
        ("joy|(?P<speaker>anna)", "ben_02.WAV: .*finds no speaker|anna_01.wav: .*finds no speaker"),
    ],
)
def test_a_pattern_without_a_speaker_is_an_error(pattern, message, tmp_path):
    folder.make(tmp_path / "mine")
    with pytest.raises(InputError, match=message):
        read_corpus("folder", tmp_path / "mine", speaker_pattern=pattern)


def test_a_label_outside_of_the_vocabulary_must_be_mapped(tmp_path):
    tiny_sounds.write(tmp_path / "mine" / "happy" / "x.wav")
    with pytest.raises(InputError, match=r"label 'happy' \(1 rows\) is not in the vocabulary.*--label happy=joy"):
        read_corpus("folder", tmp_path / "mine")
    rows = read_corpus("folder", tmp_path / "mine", {"happy": "joy"}).rows
    assert rows[["label", "source_label"]].values.tolist() == [["joy", "happy"]]


def test_a_recording_in_two_formats_is_an_error(tmp_path):
    folder.make(tmp_path / "mine")
    tiny_sounds.write(tmp_path / "mine" / "joy" / "anna_01.flac")
    with pytest.raises(InputError, match="'mine-joy/anna_01'.: utterance_id is not unique"):
        read_corpus("folder", tmp_path / "mine")


def test_a_folder_without_recordings_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no recording in it"):
        read_corpus("folder", tmp_path)
    with pytest.raises(InputError, match="is not a folder; give the one that contains"):
        read_corpus("folder", tmp_path / "gone")
