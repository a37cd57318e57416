"""Tables as spreadsheets, pandas and broken exports write them."""

import datetime
import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from merhan.data.corpora.base import read_corpus
from merhan.data.manifest import normalise_columns, read_manifest, validate
from merhan.data.table_files import load_table
from merhan.errors import InputError


HEADER = ["Datei", "Text", "Gefühl", "Sprecher", "part"]
ROWS = [
    ["clips/a.wav", "Schön, oder?", "Freude", "Zoë", "train"],
    ["clips/b.wav", 'er sagt: "nein; nie"', "Ärger", "Jürg", "dev"],
    ["clips/c.wav", "", "Freude", "Zoë", "test"],
]
COLUMNS = {"audio": "Datei", "text": "Text", "label": "Gefühl", "speaker": "Sprecher", "split": "part"}
LABELS = {"freude": "joy", "ÄRGER": "anger"}


def csv_text(separator: str = ",", newline: str = "\n", blanks: str = "", trailing: int = 0) -> str:
    """The table as text; `blanks` around headers, `trailing` empty columns."""
    header = [f"{blanks}{name}{blanks}" for name in HEADER]
    lines = [separator.join([*header, *[""] * trailing])]
    for row in ROWS:
        cells = ['"' + cell.replace('"', '""') + '"' if set(cell) & set(',;"|\t') else cell for cell in row]
        lines.append(separator.join([*cells, *[""] * trailing]))
    return newline.join(lines) + newline


def written(folder: Path, text: str, encoding: str = "utf-8", name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def check_rows(rows: pd.DataFrame, folder: Path):
    assert rows["text"].tolist() == [row[1] for row in ROWS]
    assert rows["label"].tolist() == ["joy", "anger", "joy"]
    assert rows["source_label"].tolist() == ["Freude", "Ärger", "Freude"]
    assert rows["speaker"].tolist() == ["Zoë", "Jürg", "Zoë"]
    assert rows["split"].tolist() == ["train", "validation", "test"]
    assert [Path(path) for path in rows["audio"]] == [folder / row[0] for row in ROWS]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"])
@pytest.mark.parametrize(("separator", "newline"), list(itertools.product(",;\t|", ["\n", "\r\n", "\r"])))
def test_separators_encodings_and_line_ends(separator, newline, encoding, tmp_path):
    text = csv_text(separator, newline)
    if encoding == "utf-16-be-mark":
        text, encoding = "\ufeff" + text, "utf-16-be"
    path = written(tmp_path, text, encoding)
    check_rows(read_corpus("table", path, LABELS, columns=COLUMNS).rows, tmp_path)


@pytest.mark.parametrize("blanks", [" ", "  ", "\u00a0"])
@pytest.mark.parametrize("trailing", [0, 1, 3])
def test_blanks_around_headers_and_empty_columns_at_the_end(blanks, trailing, tmp_path):
    path = written(tmp_path, csv_text(";", "\r\n", blanks, trailing))
    corpus = read_corpus("table", path, LABELS, columns=COLUMNS)
    check_rows(corpus.rows, tmp_path)
    assert corpus.notes == []


def test_the_separator_that_the_first_line_declares(tmp_path):
    path = written(tmp_path, "sep=;\r\n" + csv_text(";", "\r\n"))
    check_rows(read_corpus("table", path, LABELS, columns=COLUMNS).rows, tmp_path)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1250"])
def test_an_encoding_that_is_not_unicode_must_be_named(encoding, tmp_path):
    path = written(tmp_path, csv_text(";").replace("Zoë", "Zoé"), encoding)
    with pytest.raises(InputError, match=r"mine.csv: line 1 is not utf-8.*it reads 'Datei Text Gefühl Sprecher part"):
        read_corpus("table", path, LABELS, columns=COLUMNS)
    rows = read_corpus("table", path, LABELS, columns=COLUMNS, encoding=encoding).rows
    assert rows["speaker"].tolist() == ["Zoé", "Jürg", "Zoé"]
    with pytest.raises(InputError, match="unknown encoding 'cp12522'"):
        read_corpus("table", path, LABELS, columns=COLUMNS, encoding="cp12522")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\nyes,joy\n".encode("utf-16-le"), "zero bytes .UTF-16 without its mark"),
        (b"PK\x03\x04rest", "is an Excel workbook or a zip file; not text|rename it to mine.xlsx"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"text,label,label\na,joy,anger\n", "'label' is the name of several columns"),
        (b"text,label\na,joy\nb,joy,x\n", r"row 2 \(line 3\): has 3 cells where the header has 2"),
        (b'text,label\na,joy\n"b" c,joy\nd,joy\n', r"row 2 \(from line 3\): cannot be read"),
        (b'text,label\na,joy\n"b,joy\nd,joy\n', "cannot be read .unexpected end of data"),
    ],
)
def test_a_file_that_cannot_be_read_safely(content, expected, tmp_path):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        load_table(tmp_path / "mine.csv")


def test_another_format(tmp_path):
    (tmp_path / "mine.xls").write_bytes(b"")
    with pytest.raises(InputError, match="must be one of .parquet, .csv, .tsv, .jsonl, .xlsx, not .xls"):
        load_table(tmp_path / "mine.xls")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_breaks_within_quotation_marks_are_counted(newline, tmp_path):
    text = newline.join(["text,label", '"two', 'lines",joy', "a,anger", '"b,joy', "c,joy", 'd",anger', ""])
    corpus = read_corpus("table", written(tmp_path, text))
    assert corpus.rows["text"].tolist()[0].split() == ["two", "lines"] and len(corpus.rows) == 3
    (note,) = corpus.notes
    assert "3 lines are parts of cells with line breaks" in note and "row 1, column 'text'" in note


def test_rows_that_are_too_short_are_counted(tmp_path):
    corpus = read_corpus("table", written(tmp_path, "text,label,speaker\na,joy\nb,anger,x\n"))
    assert corpus.rows["speaker"].tolist() == ["", "x"]
    assert "1 rows have fewer cells than the header, the rest is taken as empty: row 1" in corpus.notes[0]


def test_quotation_marks_within_a_cell_stay(tmp_path):
    rows = load_table(written(tmp_path, 'text,label\nhe said "no" twice,joy\n')).rows
    assert rows["text"].item() == 'he said "no" twice'


# --- Excel ---


def test_a_workbook(tmp_path):
    pytest.importorskip("openpyxl")
    with pd.ExcelWriter(tmp_path / "mine.xlsx") as writer:
        table = pd.DataFrame(ROWS, columns=[f" {name} " for name in HEADER])
        table.to_excel(writer, sheet_name="clips", index=False)
        pd.DataFrame({"x": [1]}).to_excel(writer, sheet_name="notes", index=False)
    corpus = read_corpus("table", tmp_path / "mine.xlsx", LABELS, columns=COLUMNS)
    check_rows(corpus.rows, tmp_path)
    assert "sheet 'notes' is not read" in corpus.notes[0]


def test_a_workbook_without_openpyxl(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ImportError("no openpyxl")

    monkeypatch.setattr(pd, "read_excel", fail)
    (tmp_path / "mine.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="needs `pip install openpyxl`; or save it as `CSV UTF-8`"):
        load_table(tmp_path / "mine.xlsx")


# --- paths ---


@pytest.mark.parametrize("cell", ["clips\\a.wav", ".\\clips\\a.wav", "clips/a.wav", " clips/a.wav ", "~/clips/a.wav"])
@pytest.mark.parametrize("root", [None, "~", "."])
def test_paths_of_other_systems_and_of_the_home_folder(cell, root, tmp_path, tone, monkeypatch):
    (tmp_path / "clips").mkdir()
    tone("clips/a.wav")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    written(tmp_path, f"audio,label\n{cell},joy\n")
    (path,) = read_corpus("table", "~/mine.csv", root=root).rows["audio"]
    assert Path(path).is_file()


@pytest.mark.parametrize("place", ["", "tables"])
def test_a_root_relative_to_the_working_folder_or_to_the_table(place, tmp_path, tone, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "tables").mkdir()
    tone("clips/a.wav")
    written(tmp_path / "tables", "audio,label\nclips\\a.wav,joy\n")
    monkeypatch.chdir(tmp_path / place)
    for root in ("..", "."):
        (path,) = read_corpus("table", tmp_path / "tables" / "mine.csv", root=root).rows["audio"]
        assert Path(path).is_file() == (root == ".." or not place)


@pytest.mark.skipif(os.name == "nt", reason="a backslash separates folders there")
def test_a_file_name_with_a_backslash_stays(tmp_path, tone):
    tone("clips\\a.wav")
    written(tmp_path, "audio,label\nclips\\a.wav,joy\n")
    assert read_corpus("table", tmp_path / "mine.csv").rows["audio"].item() == str(tmp_path / "clips\\a.wav")


# --- columns of pandas ---


def manifest(**columns) -> pd.DataFrame:
    size = len(next(iter(columns.values())))
    base = {"utterance_id": [f"u{n}" for n in range(size)], "corpus": "own", "audio": "", "text": "a", "label": "joy"}
    return pd.DataFrame({**base, **columns})


STARTS = {
    "timedelta": pd.to_timedelta([0.25, None], unit="s"),
    "timedelta in us": pd.to_timedelta([0.25, None], unit="s").astype("timedelta64[us]"),
    "timedelta in s": pd.Series([np.timedelta64(250, "ms"), np.timedelta64("NaT")]),
    "objects": [datetime.timedelta(seconds=0.25), None],
    "mixed objects": [datetime.timedelta(seconds=0.25), pd.NaT],
    "time of a day": [datetime.time(0, 0, 0, 250_000), None],
    "text of pandas": ["0 days 00:00:00.250000", ""],
    "clock": ["00:00:00.25", None],
    "clock of subtitles": ["00:00:00,250", ""],
    "nullable": pd.array([0.25, None], dtype="Float64"),
    "strings": ["0.25", " "],
    "arrow": pd.array([0.25, None], dtype="double[pyarrow]"),
}


@pytest.mark.parametrize("form", STARTS)
def test_times_of_any_type_become_seconds(form):
    rows = normalise_columns(manifest(start=STARTS[form]), "x")
    assert rows["start"].iloc[0] == 0.25 and np.isnan(rows["start"].iloc[1])


@pytest.mark.parametrize("dtype", ["category", "string", "string[pyarrow]", "object"])
def test_text_columns_of_any_type(dtype, tmp_path):
    columns = {"label": ["joy", "anger"], "text": ["a", None], "speaker": [None, "x"], "audio": [None, "b.wav"]}
    table = pd.DataFrame(columns).astype(dtype)
    table.to_parquet(tmp_path / "mine.parquet")
    rows = read_corpus("table", tmp_path / "mine.parquet").rows
    assert rows["label"].tolist() == ["joy", "anger"] and rows["text"].tolist() == ["a", ""]
    assert rows["speaker"].tolist() == ["", "x"] and rows["audio"].tolist() == ["", str(tmp_path / "b.wav")]


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float64", "int64[pyarrow]", "category"])
def test_numbers_as_names(dtype):
    """A speaker is `3`, also where an empty cell made a float column of it."""
    speakers = pd.Series([3, 12]).astype(dtype)
    if dtype in ("Int64", "float64"):
        speakers[1] = None
    assert normalise_columns(manifest(speaker=speakers), "x")["speaker"].iloc[0] == "3"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"end": [np.inf, 1]}, r"row 1 \('u0'\): end is inf s"),
        ({"start": [0, -1.5]}, r"row 2 \('u1'\): start is -1.5 s"),
        ({"start": [0, 2], "end": [1, 1.5]}, r"row 2 \('u1'\): end is 1.5 s, and start 2 s"),
        ({"end": [1, 0]}, r"row 2 \('u1'\): end is 0 s, and start 0 s"),
        (
            {"start": [0, 0], "end": [2000, 1500], "duration": [2, 1.5]},
            "start and end are 2000 s apart, in a recording of 2 s .*seem to be milli",
        ),
        (
            {"start": [0, 3], "end": [1, 9], "duration": [2, 4]},
            r"row 2 .'u1'.: start and end are 6 s apart, in a recording of 4 s; correct them",
        ),
    ],
)
def test_times_that_no_recording_has(columns, expected):
    with pytest.raises(InputError, match=expected):
        validate(normalise_columns(manifest(**columns), "x"), "x")


def test_numbers_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"row 2 \('u1'\): end is not a number but '1,5'.*decimal comma"):
        normalise_columns(manifest(end=["2", "1,5"]), "x")
    with pytest.raises(
        InputError, match=r"row 1 \('u0'\): end is not a number but 'soon' \(and 1 more rows\); write sec"
    ):
        normalise_columns(manifest(end=["soon", "later"]), "x")


# --- columns with one of our names ---


def test_the_mapped_column_counts(tmp_path):
    text = "label,feeling,text,said\n0,joy,id1,yes\n1,anger,id2,no\n"
    corpus = read_corpus("table", written(tmp_path, text), columns={"label": "feeling", "text": "said"})
    assert corpus.rows["label"].tolist() == ["joy", "anger"] and corpus.rows["text"].tolist() == ["yes", "no"]
    assert [note.split(" of the table")[0] for note in corpus.notes] == ["column 'label'", "column 'text'"]


def test_columns_that_exchange_their_names(tmp_path):
    path = written(tmp_path, "text,label\njoy,yes\nanger,no\n")
    corpus = read_corpus("table", path, columns={"label": "text", "text": "label"})
    assert corpus.rows["label"].tolist() == ["joy", "anger"] and corpus.notes == []


def test_a_column_for_two_fields(tmp_path):
    path = written(tmp_path, "words,label\nyes,joy\nno,anger\n")
    rows = read_corpus("table", path, columns={"text": "words", "sentence": "words"}).rows
    assert rows["text"].tolist() == rows["sentence"].tolist() == ["yes", "no"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_column_that_is_not_to_be_read(nothing, tmp_path):
    path = written(tmp_path, "audio,text,label\na.wav,,joy\nb.wav,,anger\n")
    with pytest.raises(InputError, match="column 'text' .*is read as text, and all of its 2 cells are empty"):
        read_corpus("table", path)
    assert read_corpus("table", path, columns={"text": nothing}).rows["text"].tolist() == ["", ""]


# --- words of a broken export ---


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "<NA>", "#N/A"])
@pytest.mark.parametrize("column", ["text", "speaker"])
def test_words_for_empty_cells_are_named_and_stay(word, column, tmp_path):
    cells = {"text": "yes", "speaker": "anna", column: word}
    text = f"text,speaker,label\nno,ben,joy\n{cells['text']},{cells['speaker']},anger\n"
    corpus = read_corpus("table", written(tmp_path, text))
    assert corpus.rows[column].tolist()[1] == word
    assert f"1 of 2 cells of '{column}' are '{word}'" in corpus.notes[0] and "mine.csv, row 2" in corpus.notes[0]


def test_spoken_words_are_not_taken_for_them(tmp_path):
    assert read_corpus("table", written(tmp_path, "text,label\nNone.,joy\nnull and void,anger\n")).notes == []


# --- labels ---


def test_case_and_blanks_of_labels_do_not_matter(tmp_path):
    path = written(tmp_path, "text,label\na,Joy\nb, JOY \nc,Happy\nd,happy\ne,UNSURE\n")
    corpus = read_corpus("table", path, {" happy": "joy", "unsure": None})
    assert corpus.rows["label"].tolist() == ["joy"] * 4 and len(corpus.skipped) == 1
    assert corpus.rows["source_label"].tolist() == ["Joy", "JOY", "Happy", "happy"]


def test_an_exact_key_of_the_map_wins(tmp_path):
    path = written(tmp_path, "text,label\na,A\nb,a\n")
    assert read_corpus("table", path, {"A": "anger", "a": "amusement"}).rows["label"].tolist() == ["anger", "amusement"]


def test_all_unknown_labels_at_once(tmp_path):
    path = written(tmp_path, "text,label\na,joy\nb,happy\nc,happy\nd,angre\ne,very odd\n")
    with pytest.raises(InputError) as caught:
        read_corpus("table", path)
    said = str(caught.value)
    assert "mine.csv, row 2 ('mine-000002'): labels 'happy' (2 rows), 'angre' (1 rows), 'very odd' (1 rows)" in said
    assert 'data.label_map: {happy: joy, angre: anger, "very odd": null}' in said
    assert '--label happy=joy --label angre=anger --label "very odd="' in said


def test_a_target_that_does_not_exist(tmp_path):
    path = written(tmp_path, "text,label\na,happy\n")
    with pytest.raises(InputError, match=r"--label happy=joi.*'joi' is not in the vocabulary; did you mean 'joy'"):
        read_corpus("table", path, {"happy": "joi"})


def test_rows_without_a_label_are_counted(tmp_path):
    corpus = read_corpus("table", written(tmp_path, "text,label\na,joy\nb,\nc, \n"))
    assert len(corpus.rows) == 1 and corpus.notes == ["2 left out: the label is empty or hidden"]
    with pytest.raises(InputError, match="no row has a label"):
        read_corpus("table", written(tmp_path, "text,label\nb,\n"))


def test_a_manifest_with_other_capitals(tmp_path):
    path = written(tmp_path, "utterance_id,corpus,audio,text,label\nu,own,,yes,JOY\n")
    assert read_manifest(path)["label"].item() == "joy"
