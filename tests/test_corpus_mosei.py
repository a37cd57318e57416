"""The CMU-MOSEI reader, on synthetic releases with either of the two tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from releases import mosei, tiny_sounds

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora import mosei_corpus
from merhan.data.corpora.base import Corpus, read_corpus
from merhan.errors import InputError


def read(folder: Path) -> tuple[pd.DataFrame, Corpus]:
    corpus = read_corpus("mosei", folder)
    return corpus.rows.set_index("utterance_id"), corpus


def test_the_published_counts_sum_to_23259_sentences():
    assert sum(mosei_corpus.ABOUT.published.values()) == 23_259
    assert set(mosei_corpus.ABOUT.published) == set(mosei_corpus.LABELS)


def test_a_row(tmp_path):
    rows, _ = read(mosei.make(tmp_path))
    row = rows.loc["mosei-_0efYOjQYRc_0"]
    assert row["audio"] == str(tmp_path / "Raw" / "Audio" / "Full" / "WAV_16000" / "_0efYOjQYRc.wav")
    assert (row["label"], row["split"], row["dialogue"]) == ("positive", "test", "mosei-_0efYOjQYRc")
    assert (row["start"], row["end"], row["turn"]) == (0.0, 0.802, 0)


def test_the_label_is_the_sign_of_the_sentiment(tmp_path):
    rows, _ = read(mosei.make(tmp_path))
    assert sorted(rows["label"].unique()) == ["negative", "neutral", "positive"]


def test_the_strongest_emotion_is_not_read(tmp_path):
    """label6 is "happy" for a sentence that is as angry as happy, and for those without any emotion."""
    with_column, without_column = (
        read(mosei.make(tmp_path / str(label6), label6=label6))[0] for label6 in (True, False)
    )
    assert with_column.loc["mosei-zv0Jl4TIQDc_0", "source_label"] == "positive"
    assert with_column.drop(columns="audio").equals(without_column.drop(columns="audio"))


def test_turns_are_in_chronological_order(tmp_path):
    rows, _ = read(mosei.make(tmp_path))
    video = rows[rows["dialogue"] == "mosei--3g5yACwYnA"]
    assert video["turn"].to_dict() == {
        "mosei--3g5yACwYnA_1": 0,
        "mosei--3g5yACwYnA_2": 1,
        "mosei--3g5yACwYnA_0": 2,
    }


def test_texts_are_joined_by_time_and_not_by_the_clip_number(tmp_path):
    rows, corpus = read(mosei.make(tmp_path))
    for name, row in rows.iterrows():
        assert row["text"] == f"Sentence {name.rsplit('_', 1)[1]} of it, a ___ blank or two."
    assert "no text" not in " ".join(corpus.notes)


def test_a_sentence_does_not_begin_before_its_recording(tmp_path):
    rows, _ = read(mosei.make(tmp_path))
    assert rows.loc["mosei-08d4NTXkSxw_0", "start"] == 0.0
    measured = measure_recordings(rows.reset_index(), "mosei")[0].set_index("utterance_id")
    np.testing.assert_allclose(measured["duration"], rows["end"] - rows["start"], atol=1e-3)


def test_segments_have_no_times(tmp_path):
    rows, _ = read(mosei.make(tmp_path, audio="segments"))
    assert "start" not in rows and "end" not in rows
    assert rows.loc["mosei--3g5yACwYnA_2", "audio"].endswith("Segmented_Audio/train/-3g5yACwYnA_2.wav")
    assert measure_recordings(rows, "mosei")[0]["duration"].tolist() == [0.1] * len(rows)


def test_the_released_segments_are_not_read(tmp_path):
    """They are numbered like the transcripts: -3g5yACwYnA_2 is the sentence with index 1."""
    mosei.make(tmp_path, audio="none")
    tiny_sounds.write(tmp_path / "Raw" / "Audio" / "Segmented" / "-3g5yACwYnA_2.wav")
    rows, corpus = read(tmp_path)
    assert (rows["audio"] == "").all() and corpus.notes[-1] == "7 of 7 rows have no audio"


def test_videos_in_no_fold_are_left_out(tmp_path):
    rows, corpus = read(mosei.make(tmp_path))
    assert rows["split"].value_counts().to_dict() == {"train": 4, "test": 2, "validation": 1}
    assert corpus.notes == ["1 left out: its video is in none of the three folds"]
    assert corpus.skipped[0].item == "mosei--Alixo7euuU_0"


def test_rows_without_audio_and_text_are_left_out(tmp_path):
    mosei.make(tmp_path, texts=False)
    (tmp_path / "Raw" / "Audio" / "Full" / "WAV_16000" / "100499.wav").unlink()
    rows, corpus = read(tmp_path)
    assert "mosei-100499_0" not in rows.index
    assert corpus.notes[1:] == [
        "1 left out: neither its recording nor its text is available",
        "6 of 6 rows have no text",
    ]


def test_the_table_of_mmsa(tmp_path):
    rows, corpus = read(mosei.make_mmsa(tmp_path))
    assert rows["split"].value_counts().to_dict() == {"train": 4, "test": 2, "validation": 1} and not corpus.notes
    row = rows.loc["mosei--3g5yACwYnA_5"]
    assert row["audio"] == str(tmp_path / "Raw" / "-3g5yACwYnA" / "5.mp4")
    assert (row["text"], row["label"], row["turn"]) == ("Sentence 0, with a comma", "positive", 5)
    assert rows[rows["dialogue"] == "mosei--3g5yACwYnA"]["turn"].tolist() == [2, 3, 5]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label2b", "label3", "lacks the column 'label2b'"),
        (",1,1,0,3,1", ",1,2,0,3,1", "row 5, label2b: label '2' is not in the label table"),
        (",0,3,1\n", ",0,3,7\n", "row 5, split: label '7' is not in the label table"),
        ("0,0.0,0.9", "0,zero,0.9", "row 5: start is 'zero', not a number"),
    ],
)
def test_a_malformed_table_is_an_error(old, new, message, tmp_path):
    table = mosei.make(tmp_path) / "CMU_MOSEI_Labels.csv"
    assert table.read_text().count(old) == 1
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read_corpus("mosei", tmp_path)


@pytest.mark.parametrize("line", [b"100499___1___0.0___0.9\n", b"100499___1___0.0___late___Yes.\n", b"100499\xff\n"])
def test_a_malformed_transcript_is_an_error(line, tmp_path):
    mosei.make(tmp_path)
    (tmp_path / "Raw" / "Transcript" / "Segmented" / "Combined" / "100499.txt").write_bytes(line)
    with pytest.raises(InputError, match="100499.txt: a line should be video___clip___start___end___text"):
        read_corpus("mosei", tmp_path)


def test_one_table_and_a_modality_are_required(tmp_path):
    with pytest.raises(InputError, match="should have one .* below it, has 0"):
        read_corpus("mosei", tmp_path)
    mosei.make(tmp_path, audio="none", texts=False)
    with pytest.raises(InputError, match="no recording and no text"):
        read_corpus("mosei", tmp_path)
    mosei.make_mmsa(tmp_path)
    with pytest.raises(InputError, match="should have one .* below it, has 2"):
        read_corpus("mosei", tmp_path)
