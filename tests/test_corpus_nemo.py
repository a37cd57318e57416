"""The nEMO reader, on a synthetic release in the layout of GitHub."""

import pytest
from releases import nemo

from merhan.data.corpora.base import read_corpus
from merhan.data.corpora.nemo_corpus import ABOUT
from merhan.errors import InputError


def test_the_published_counts_sum_to_4481_recordings():
    assert sum(ABOUT.published.values()) == 4481 and set(ABOUT.published) == set(nemo.EMOTIONS)


def test_a_row(tmp_path):
    rows = read_corpus("nemo", nemo.make(tmp_path)).rows
    row = rows.set_index("utterance_id").loc["nemo-SM0_surprised_38"]
    assert row["audio"] == str(tmp_path / "samples" / "SM0_surprised_38.wav")
    assert row["text"] == "„Ród smoka” to serial telewizyjny."
    assert (row["label"], row["source_label"]) == ("surprise", "surprised")
    assert (row["gender"], row["sentence"], row["language"]) == ("male", "nemo-38", "pl")


def test_spaces_before_a_speaker_are_removed(tmp_path):
    rows = read_corpus("nemo", nemo.make(tmp_path)).rows
    assert sorted(rows["speaker"].unique()) == ["nemo-EB0", "nemo-MP0", "nemo-SM0"]


def test_an_unbalanced_quotation_mark_is_read_literally(tmp_path):
    corpus = read_corpus("nemo", nemo.make(tmp_path))
    # Three actors, six emotions, three sentences; MP0 lacks one sentence, and one line has no file.
    assert len(corpus.rows) == 3 * 6 * 3 - 6 - 1
    texts = corpus.rows.groupby("sentence")["text"].unique()
    assert texts["nemo-46"].tolist() == ['"Żołwica to dawne określenie na siostrę męża.']


def test_rows_are_sorted(tmp_path):
    rows = read_corpus("nemo", nemo.make(tmp_path)).rows
    assert rows["utterance_id"].is_monotonic_increasing


def test_lines_without_files_and_files_without_lines_are_counted(tmp_path):
    corpus = read_corpus("nemo", nemo.make(tmp_path))
    assert [skipped[:2] for skipped in corpus.skipped] == [
        ("SM0_fear_2.wav", "in data.tsv, but not in samples"),
        ("SM0_fear_99.wav", "in samples, but not in data.tsv"),
    ]


def test_a_line_that_contradicts_its_file_name_is_an_error(tmp_path):
    table = nemo.make(tmp_path) / "data.tsv"
    before, after = table.read_text(encoding="utf-8").split("        SM0", 1)
    table.write_text(f"{before}        EB0{after}", encoding="utf-8")
    number = before.count("\n") + 1
    with pytest.raises(InputError, match=f"data.tsv, line {number}: file_id 'SM0_.* the line has 'EB0' and"):
        read_corpus("nemo", tmp_path)


def test_an_incomplete_line_is_an_error(tmp_path):
    table = nemo.make(tmp_path) / "data.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines[6] = lines[6].rsplit("\t", 2)[0]
    table.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="data.tsv, line 7: a field is empty or missing"):
        read_corpus("nemo", tmp_path)


def test_an_unknown_emotion_is_an_error(tmp_path):
    table = nemo.make(tmp_path) / "data.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("surprised", "surprise"), encoding="utf-8")
    for file in (tmp_path / "samples").glob("*surprised*"):
        file.rename(file.with_name(file.name.replace("surprised", "surprise")))
    with pytest.raises(InputError, match="label 'surprise' is not in the label table .*; did you mean 'surprised'"):
        read_corpus("nemo", tmp_path)


def test_a_table_without_its_columns_is_an_error(tmp_path):
    table = nemo.make(tmp_path) / "data.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("raw_text", "text"), encoding="utf-8")
    with pytest.raises(InputError, match="lacks the column 'raw_text'"):
        read_corpus("nemo", tmp_path)


def test_the_parquet_release_is_referred_to_the_datasets_reader(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00002.parquet").touch()
    with pytest.raises(InputError, match="Parquet files are for `corpus: datasets`"):
        read_corpus("nemo", tmp_path)


def test_a_table_without_recordings_is_an_error(tmp_path):
    nemo.make(tmp_path)
    for file in (tmp_path / "samples").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="samples: holds no recording of data.tsv"):
        read_corpus("nemo", tmp_path)
