"""Corpus readers on real releases, on the built-in corpus and on the user's own tables, and the manifest."""

import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.stats import chi2_contingency

from merhan.data.audio_facts import measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.demo_corpus import EMOTIONS, SPLITS
from merhan.data.dataset import dialogue_context
from merhan.data.manifest import read_manifest, write_manifest
from merhan.errors import InputError
from processing_merhan import load_audio


# --- published counts, on the real releases ---


def test_emodb(corpora):
    corpus = read_corpus("emodb", corpora / "emodb")
    rows, notes = corpus.rows, corpus.notes
    letters = rows["source_label"].value_counts().to_dict()
    assert len(rows) == 535 and not notes
    assert letters == {"W": 127, "L": 81, "N": 79, "F": 71, "A": 69, "T": 62, "E": 46}
    speakers = [49, 58, 43, 38, 55, 35, 61, 69, 56, 71]
    assert rows["speaker"].value_counts().sort_index().tolist() == speakers
    assert rows["text"].nunique() == 10
    assert set(rows.loc[rows["gender"] == "male", "speaker"].str[-2:]) == {"03", "10", "11", "12", "15"}
    assert measure_recordings(rows.head(20), "emodb")[0]["duration"].between(1, 9).all()


def test_ravdess(corpora):
    rows = read_corpus("ravdess", corpora / "ravdess").rows
    assert len(rows) == 1440 and rows["speaker"].nunique() == 24
    assert rows["label"].value_counts().to_dict() == {"neutral": 96} | dict.fromkeys(
        ("calm", "joy", "sadness", "anger", "fear", "disgust", "surprise"), 192
    )
    originals = read_corpus("ravdess", corpora / "ravdess_original").rows
    assert len(originals) == 120
    copies = rows.set_index("utterance_id").loc[originals["utterance_id"]]
    assert copies["label"].tolist() == originals["label"].tolist()
    np.testing.assert_allclose(
        measure_recordings(originals, "a")[0]["duration"],
        measure_recordings(copies.reset_index(), "b")[0]["duration"],
        atol=1e-3,
    )


def test_meld(corpora):
    corpus = read_corpus("meld", corpora / "meld")
    rows, notes = corpus.rows, corpus.notes
    assert rows.groupby("split", sort=False).size().to_dict() == {"train": 9989, "validation": 1109, "test": 2610}
    assert "13708 of 13708 rows have text alone" in notes[0]
    assert not rows["text"].str.contains("[\u2018\u2019\u201c\u201d]").any()
    assert rows.groupby("split", sort=False)["dialogue"].nunique().tolist() == [1038, 114, 280]
    # A published property of the split, computed from the rows.
    train, test = (rows[rows["split"] == name] for name in ("train", "test"))
    assert abs(test["speaker"].isin(train["speaker"]).mean() - 0.958) < 0.001


# --- layouts without the real release ---


def test_meld_with_clips(tmp_path):
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    line = '{},"It\u2019s {}, \u201cokay\u201d",Ross,{},neutral,{},{},1,1,"00:00:01,000","00:00:02,000"\r\n'
    for table, dialogue in (("train", 125), ("dev", 110), ("test", 1)):
        lines = [line.format(turn, turn, "joy", dialogue, turn) for turn in (2, 3, 7)]
        (tmp_path / f"{table}_sent_emo.csv").write_text(header + "".join(lines))
    clips = {"train_splits": 125, "dev_splits_complete": 110, "output_repeated_splits_test": 1}
    for folder, dialogue in clips.items():
        (tmp_path / folder).mkdir()
        for turn in (2, 3, 7):
            (tmp_path / folder / f"dia{dialogue}_utt{turn}.mp4").touch()
    (tmp_path / "output_repeated_splits_test" / "final_videos_testdia1_utt3.mp4").touch()
    (tmp_path / "output_repeated_splits_test" / "._dia1_utt3.mp4").touch()
    corpus = read_corpus("meld", tmp_path)
    rows, notes = corpus.rows, corpus.notes
    assert rows["text"].iloc[0] == 'It\'s 2, "okay"'
    silent = rows.loc[rows["audio"] == "", "utterance_id"].tolist()
    assert silent == ["meld-train-dia125-utt3", "meld-validation-dia110-utt7"], "clips that cannot be decoded"
    assert "2 of 9 rows" in notes[0]
    corrected = rows.loc[rows["utterance_id"] == "meld-test-dia1-utt3", "audio"].item()
    assert corrected.endswith("final_videos_testdia1_utt3.mp4")
    (tmp_path / "train_sent_emo.csv").write_text(header + line.format(1, 1, "bliss", 1, 1))
    with pytest.raises(InputError, match="meld-train-dia1-utt1: label 'bliss'"):
        read_corpus("meld", tmp_path)


def test_context_is_the_preceding_turns(corpora):
    rows = read_corpus("meld", corpora / "meld").rows
    contexts = dialogue_context(rows, 3)
    by_id = rows.set_index("utterance_id")
    assert contexts["meld-train-dia0-utt0"] == []
    expected = [
        {
            "speaker": by_id.loc[f"meld-train-dia0-utt{turn}", "speaker"],
            "text": by_id.loc[f"meld-train-dia0-utt{turn}", "text"],
        }
        for turn in (2, 3, 4)
    ]
    assert contexts["meld-train-dia0-utt5"] == expected
    assert max(len(turns) for turns in contexts.values()) == 3
    # Turn numbers have gaps in 72 train dialogues: the context is the preceding turns, not the preceding numbers.
    numbers = sorted(rows.loc[rows["dialogue"] == "meld-train-dia2", "turn"])
    assert len(dialogue_context(rows, 99)[f"meld-train-dia2-utt{numbers[-1]}"]) == len(numbers) - 1


def test_copies_and_other_files_are_counted(tmp_path, tone):
    name = "03-01-05-01-02-01-18.wav"
    for folder in ("Actor_18", "nested/Actor_18"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(tone(), tmp_path / folder / name)
    corpus = read_corpus("ravdess", tmp_path)
    rows, notes = corpus.rows, corpus.notes
    assert len(rows) == 1 and rows["label"].item() == "anger" and rows["gender"].item() == "female"
    assert notes == ["1 left out: a copy of a recording in another folder"]
    (tmp_path / "wav").mkdir()
    for name in ("03a01Wa.wav", "notes.wav"):
        shutil.copy(tone(), tmp_path / "wav" / name)
    corpus = read_corpus("emodb", tmp_path / "wav")
    rows, notes = corpus.rows, corpus.notes
    assert rows["label"].item() == "anger" and notes == ["1 left out: its name is not an EMO-DB name"]


# --- the built-in corpus ---


def test_demo_splits_are_speaker_disjoint_and_balanced(demo):
    assert demo.groupby("split")["speaker"].nunique().to_dict() == {name: count for name, (count, _) in SPLITS.items()}
    assert demo.groupby("speaker")["split"].nunique().max() == 1
    assert demo.groupby("split")["label"].value_counts().unstack().nunique(axis=1).eq(1).all()


def test_demo_text_depends_on_valence_only(tmp_path):
    """A chi-squared test finds no dependence of the text on arousal."""
    rows = read_corpus("demo", tmp_path, seed=1, scale=0.3).rows
    rows["arousal"] = [EMOTIONS[label][0] for label in rows["label"]]
    rows["valence"] = [EMOTIONS[label][1] for label in rows["label"]]
    rows["word"] = rows["text"].str.split().str[-1]
    assert rows.groupby("word")["valence"].nunique().max() == 1, "the last word determines valence"
    for column in ("word", "text"):
        counts = pd.crosstab(rows[column].str[:12], rows["arousal"])
        assert chi2_contingency(counts[counts.sum(axis=1) > 5]).pvalue > 0.01


def test_demo_audio_depends_on_arousal_only(demo):
    def brightness(path: str) -> float:
        """The spectral centroid relative to the Nyquist frequency."""
        power = np.abs(np.fft.rfft(load_audio(path))) ** 2
        return (power * np.arange(len(power))).sum() / power.sum() / len(power)

    rows = demo[demo["split"] != "validation"].copy()
    rows["brightness"] = [brightness(path) for path in rows["audio"]]
    mean = rows.groupby("label")["brightness"].mean()
    assert min(mean["joy"], mean["anger"]) > 1.5 * max(mean["calm"], mean["sadness"])
    spread = rows.groupby("label")["brightness"].std().mean() / np.sqrt(len(rows) / 4)
    assert abs(mean["joy"] - mean["anger"]) < 5 * spread and abs(mean["calm"] - mean["sadness"]) < 5 * spread


def test_demo_is_reproducible(tmp_path):
    first, second = (read_corpus("demo", tmp_path / name, scale=0.05).rows for name in "ab")
    assert first["text"].tolist() == second["text"].tolist()
    for path, other in list(zip(first["audio"], second["audio"], strict=True))[::20]:
        assert np.array_equal(soundfile.read(path)[0], soundfile.read(other)[0])


# --- the user's own data ---


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_with_other_column_names(suffix, tmp_path, tone):
    tone("a.wav")
    rows = pd.DataFrame(
        {"path": ["a.wav", ""], "said": ["hello", "no"], "feels": ["happy", "angry"], "who": ["x", "y"]}
    )
    file = tmp_path / f"mine{suffix}"
    writers = {".csv": rows.to_csv, ".parquet": rows.to_parquet}
    if suffix == ".jsonl":
        rows.to_json(file, orient="records", lines=True)
    elif suffix == ".tsv":
        rows.to_csv(file, sep="\t", index=False)
    else:
        writers[suffix](file, index=False)
    columns = {"audio": "path", "text": "said", "label": "feels", "speaker": "who"}
    corpus = read_corpus("table", file, {"happy": "joy", "angry": "anger"}, columns=columns).rows
    assert corpus["label"].tolist() == ["joy", "anger"] and corpus["source_label"].tolist() == ["happy", "angry"]
    assert corpus["audio"].tolist() == [str(tmp_path / "a.wav"), ""]
    assert corpus["utterance_id"].tolist() == ["mine-000001", "mine-000002"] and set(corpus["corpus"]) == {"mine"}
    with pytest.raises(InputError, match="no column 'fels'; did you mean 'feels'"):
        read_corpus("table", file, columns={**columns, "label": "fels"})
    with pytest.raises(InputError, match="unknown column 'labl'; did you mean 'label'"):
        read_corpus("table", file, columns={"labl": "feels"})
    with pytest.raises(InputError, match="labels 'happy' .1 rows., 'angry' .1 rows. are not in the vocabulary"):
        read_corpus("table", file, columns=columns)


def test_labels_are_renamed_and_dropped(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("text,label\nyes,stress\nno,unclear\nwell,neutral\n")
    corpus = read_corpus("table", file, {"unclear": None}, own_labels=["stress"])
    rows, notes = corpus.rows, corpus.notes
    assert rows["label"].tolist() == ["stress", "neutral"], "declared labels are valid"
    assert notes == ["1 left out: label 'unclear' is dropped by data.label_map"]
    with pytest.raises(InputError, match="no row has the label 'sterss'; did you mean 'stress'"):
        read_corpus("table", file, {"sterss": "anger"})


def test_a_datasets_data_set(tmp_path, tone):
    features = datasets.Features(
        {
            "file": datasets.Value("string"),
            "sentence": datasets.Value("string"),
            "emotion": datasets.ClassLabel(names=["anger", "joy"]),
        }
    )
    rows = {"file": [str(tone("a.wav")), str(tone("b.wav"))], "sentence": ["no", "yes"], "emotion": [0, 1]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=whole, dev=whole, test=whole).save_to_disk(tmp_path / "saved")
    columns = {"audio": "file", "text": "sentence", "label": "emotion"}
    corpus = read_corpus("datasets", tmp_path / "saved", columns=columns).rows
    assert corpus["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert corpus["label"].tolist() == ["anger", "joy"] * 3
    assert measure_recordings(corpus, "x")[0]["duration"].tolist() == [1.0] * 6
    with pytest.raises(InputError, match="no column 'emotoin'"):
        read_corpus("datasets", tmp_path / "saved", columns={**columns, "label": "emotoin"})
    with pytest.raises(InputError, match="cannot be loaded"):
        read_corpus("datasets", tmp_path / "gone")


def test_audio_inside_a_datasets_data_set_is_written_to_the_cache(tmp_path, tone, cache):
    content = tone("a.flac").read_bytes()
    pd.DataFrame({"audio": [{"bytes": content, "path": "a.flac"}], "label": ["joy"]}).to_parquet(
        tmp_path / "train.parquet"
    )
    path = read_corpus("datasets", tmp_path).rows["audio"].item()
    assert path.startswith(str(cache)) and Path(path).read_bytes() == content


# --- the manifest ---


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_manifest_round_trip(suffix, demo, tmp_path):
    path = tmp_path / "deep" / f"manifest{suffix}"
    write_manifest(demo, path)
    again = read_manifest(path)
    assert again["utterance_id"].tolist() == demo["utterance_id"].tolist()
    assert load_audio(again["audio"].iloc[0]).any()
    np.testing.assert_allclose(again["duration"], demo["duration"])
    shutil.move(tmp_path / "deep", tmp_path / "moved")
    with pytest.raises(InputError):
        measure_recordings(read_manifest(tmp_path / "moved" / path.name, root=tmp_path), "moved")
    assert measure_recordings(read_manifest(tmp_path / "moved" / path.name), "moved")[0]["duration"].all(), (
        "paths are relative"
    )


def test_feature_paths_are_relative_to_their_manifest(demo, tmp_path):
    """Like paths of audio, also when two manifests are joined of which one has no features."""
    names = [str(tmp_path / "there" / "vectors" / f"{number}.npy") for number in range(3)]
    rows = demo.head(3).assign(audio_features=names, text_features=["", *names[1:]])
    write_manifest(rows, tmp_path / "there" / "m.csv")
    written = pd.read_csv(tmp_path / "there" / "m.csv")["audio_features"].tolist()
    assert written == [f"vectors/{number}.npy" for number in range(3)]
    write_manifest(demo.iloc[3:5], tmp_path / "m.csv")
    paths = [str(tmp_path / "there" / "m.csv"), str(tmp_path / "m.csv")]
    for again in (read_manifest(paths[0]), read_corpus("manifest", paths).rows):
        for column in ("audio_features", "text_features"):
            expected = [*rows[column], "", ""][: len(again)]
            assert [str(Path(path).resolve()) if path else "" for path in again[column]] == expected


def test_start_and_end_select_a_segment_of_a_recording(tmp_path, tone):
    tone("long.wav", seconds=3.0)
    lines = ["utterance_id,corpus,audio,text,label,start,end", "a,own,long.wav,,joy,0.5,1.5", "b,own,long.wav,,joy,,"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    assert measure_recordings(read_manifest(tmp_path / "m.csv"), "m")[0]["duration"].tolist() == [1.0, 3.0]


def test_a_missing_column_names_the_recipe_key_and_the_option(tmp_path):
    (tmp_path / "m.csv").write_text("utterance_id,corpus,audio,text,feeling\na,own,,Hello.,joy\n")
    with pytest.raises(InputError, match=r"lacks the column 'label'.*data\.options\.columns .`--column label=\.\.\.`"):
        read_manifest(tmp_path / "m.csv")
