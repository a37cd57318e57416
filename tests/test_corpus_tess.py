"""The TESS reader, on synthetic releases with the irregular files of the copies in circulation."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from releases import tess, tiny_sounds

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.tess_corpus import ABOUT
from merhan.errors import InputError


def test_a_complete_release_has_the_published_counts(tmp_path):
    words = [f"word{letter}{other}" for letter in "abcdefghij" for other in "abcdefghijklmnopqrst"]
    corpus = read_corpus("tess", tess.make(tmp_path, words, nested=False))
    assert corpus.rows["source_label"].value_counts().to_dict() == dict(ABOUT.published)
    assert sum(ABOUT.published.values()) == 2800 == len(corpus.rows) and not corpus.notes


def test_a_row(tmp_path):
    rows = read_corpus("tess", tess.make(tmp_path)).rows
    row = rows.set_index("utterance_id").loc["tess-YAF_food_happy"]
    assert row["audio"] == str(tmp_path / tess.NAME / "YAF_happy" / "YAF_food_happy.wav")
    assert row["text"] == "Say the word food." and row["sentence"] == "tess-food"
    assert (row["label"], row["source_label"]) == ("joy", "happy")
    assert (row["speaker"], row["gender"], row["language"]) == ("tess-YAF", "female", "en")
    assert rows["utterance_id"].is_monotonic_increasing


def test_a_nested_copy_of_the_release_is_not_read(tmp_path):
    root = tess.make(tmp_path)
    corpus = read_corpus("tess", root)
    assert len(corpus.rows) == 56 and corpus.notes == ["56 left out: a copy of a recording in another folder"]
    assert not any(Path(audio).is_relative_to(root / tess.NAME) for audio in corpus.rows["audio"])
    tiny_sounds.write(root / "OAF_Sad" / "OAF_food_sad.wav", seconds=0.2)
    assert (
        read_corpus("tess", root).notes[-1]
        == "1 left out: has the name of a recording in another folder, but another size"
    )


def test_the_misspelled_speaker_is_recognised(tmp_path):
    rows = read_corpus("tess", tess.make(tmp_path)).rows
    assert set(rows["speaker"]) == {"tess-OAF", "tess-YAF"}
    assert Path(rows.set_index("utterance_id").loc["tess-OAF_bite_neutral", "audio"]).name == "OA_bite_neutral.wav"


def test_a_copy_with_the_corrected_name_is_the_same_recording(tmp_path):
    root = tess.make(tmp_path, nested=False)
    shutil.copy(root / "OAF_neutral" / "OA_bite_neutral.wav", root / "OAF_neutral" / "OAF_bite_neutral.wav")
    corpus = read_corpus("tess", root)
    assert len(corpus.rows) == 56 and len(corpus.skipped) == 1


def test_ps_and_pleasant_surprise_are_the_same_emotion(tmp_path):
    rows = read_corpus("tess", tess.make(tmp_path)).rows
    surprised = rows[rows["label"] == "surprise"]
    assert set(surprised["source_label"]) == {"ps"} and len(surprised) == 8
    assert {Path(audio).parent.name for audio in surprised["audio"]} == {
        "OAF_Pleasant_surprise",
        "YAF_pleasant_surprised",
    }


def test_aiff_named_wav_and_another_sampling_rate_are_decoded(tmp_path):
    rows = read_corpus("tess", tess.make(tmp_path)).rows
    irregular = rows[rows["utterance_id"].isin(["tess-YAF_germ_angry", "tess-YAF_neat_fear", "tess-OAF_food_fear"])]
    np.testing.assert_allclose(measure_recordings(irregular, "tess")[0]["duration"], [0.1] * 3, atol=1e-4)


@pytest.mark.parametrize("group", tess.FOLDERS)
def test_a_folder_that_contradicts_the_name_is_an_error(group, tmp_path):
    speaker, emotion = group[:3], tess.FOLDERS[group]
    other = {"OAF": "YAF", "YAF": "OAF"}[speaker], {"sad": "fear"}.get(emotion, "sad")
    for name in (f"{other[0]}_lid_{emotion}.wav", f"{speaker}_lid_{other[1]}.wav"):
        wrong = tiny_sounds.write(tmp_path / group / name)
        with pytest.raises(InputError, match=f"{name}: folder and file name contradict each other"):
            read_corpus("tess", tmp_path)
        wrong.unlink()


def test_recordings_outside_of_the_folders_are_read_by_their_names(tmp_path):
    for group in ("", "OAF_all"):
        tiny_sounds.write(tmp_path / group / f"{group[:3] or 'YAF'}_lid_ps.wav")
    assert read_corpus("tess", tmp_path).rows["label"].tolist() == ["surprise"] * 2


def test_metadata_files_of_macos_are_not_read(tmp_path):
    root = tess.make(tmp_path, nested=False)
    (root / "OAF_Sad" / "._OAF_bite_sad.wav").write_bytes(b"Mac OS X")
    corpus = read_corpus("tess", root)
    assert len(corpus.rows) == 56 and corpus.notes == ["1 left out: metadata that macOS wrote beside a recording"]


@pytest.mark.parametrize("name", ["XAF_lid_fear", "OA_lid_fear", "OAF_fear", "OAF_lid_fear_2"])
def test_a_name_that_is_not_a_tess_name_is_an_error(name, tmp_path):
    tiny_sounds.write(tmp_path / f"{name}.wav")
    with pytest.raises(InputError, match=f"{name}.wav: a TESS name is speaker, word and emotion"):
        read_corpus("tess", tmp_path)


def test_an_unknown_emotion_is_an_error(tmp_path):
    tiny_sounds.write(tmp_path / "OAF_lid_bored.wav")
    with pytest.raises(InputError, match="tess-OAF_lid_bored: label 'bored'"):
        read_corpus("tess", tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no TESS recording"):
        read_corpus("tess", tmp_path)
