"""Reading of tables: Parquet, CSV, TSV, JSONL and Excel workbooks.

CSV files are read as spreadsheets write them: any of the usual separators, byte order marks, blanks around headers,
empty columns at the end. What cannot be decided safely, as the encoding of a file that is not UTF-8, is an error that
names it; what may hint at a fault, as a cell of several lines, is a note.
"""

import codecs
import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from merhan.errors import InputError
from merhan.files import home_path
from merhan.logs import get_logger


logger = get_logger(__name__)

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".xlsx")

_SEPARATORS = (",", ";", "\t", "|")
# UTF-32 is not among them: its mark begins with that of UTF-16, and no spreadsheet writes it.
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_EXCEL_SEPARATOR = "sep="  # the first line of a file may declare its separator to Excel
_LARGEST_CELL = 10_000_000  # characters


class Table(NamedTuple):
    """A table, and sentences about what may be a fault of its file."""

    rows: pd.DataFrame
    notes: list[str]


def read_table(path: str | Path, encoding: str | None = None) -> pd.DataFrame:
    """As [`load_table`], with the notes in the log."""
    rows, notes = load_table(path, encoding)
    for note in notes:
        logger.warning(f"note: {note}")
    return rows


def load_table(path: str | Path, encoding: str | None = None) -> Table:
    """Read a Parquet, CSV, TSV, JSONL or .xlsx file; cells of CSV, TSV and .xlsx files stay strings.

    Args:
        path: the file; `~` is the home folder.
        encoding: of a CSV or TSV file that is not Unicode, as `cp1252`.

    Raises:
        InputError: the file does not exist, has another suffix or cannot be parsed.
    """
    path = home_path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; check the path, or make one with `merhan prepare`.")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, encoding)
    if suffix == ".xlsx":
        return _read_workbook(path)
    readers = {
        ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, convert_dates=False),
    }
    if suffix not in readers:
        words = suffix or "a file without a suffix"
        raise InputError(f"{path}: a table must be one of {', '.join(SUFFIXES)}, not {words}.")
    try:
        return Table(readers[suffix](path), [])
    except TypeError:  # of pandas, for a line like `true` among objects
        raise InputError(f'{path}: a line holds no object; write each row as {{"column": value, ...}}.') from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as {suffix[1:]} ({' '.join(str(error).split())}).") from None


# --- CSV ---


def _read_csv(path: Path, encoding: str | None) -> Table:
    text = _text(path, encoding)
    separator, text = _separator(text)
    # Rows with the number of the line that they end in. Strict: a stray quotation mark is an error.
    records = _records(path, text, separator)
    if not records:
        raise InputError(f"{path}: is empty; the first line should hold the names of the columns.")
    names = _names(path, records[0][1])
    rows = [_cells(path, number, record, names) for number, record in enumerate(records[1:], start=1)]
    table = _frame(rows, names, path)
    return Table(table, [*_short_rows(path, records), *_long_cells(path, table)])


def _text(path: Path, encoding: str | None) -> str:
    """The decoded content of a file."""
    content = path.read_bytes()
    if content.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: is an Excel workbook or a zip file, not text; rename it to {path.stem}.xlsx.")
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if marked is None and b"\0" in content[:4096]:
        raise InputError(
            f"{path}: is not text in UTF-8, it holds zero bytes (UTF-16 without its mark?); save it as `CSV UTF-8`, or "
            f"name its encoding with data.options.encoding (`--option encoding=utf-16-le`)."
        )
    try:
        return content.decode(encoding or marked or "utf-8")
    except LookupError:
        raise InputError(f"data.options.encoding (`--option encoding=...`): unknown encoding {encoding!r}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {_wrong_encoding(content, error)}") from None


def guess_encoding(path: Path) -> str | None:
    """`cp1252` for a file that is not Unicode but can be read so, None for a Unicode file."""
    content = path.read_bytes()
    if content.startswith(tuple(_MARKS)):
        return None
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return None


def _wrong_encoding(content: bytes, error: UnicodeDecodeError) -> str:
    line = content[: error.start].count(b"\n") + 1
    excerpt = content[max(error.start - 20, 0) : error.start + 20].decode("cp1252", errors="replace")
    word = excerpt.replace("\r", "\n").replace(";", " ").replace(",", " ")
    words = " ".join(word.split())
    return (
        f"line {line} is not {error.encoding} ({error.reason}). As Windows-1252, which Excel writes as plain `CSV`, it "
        f"reads {words!r}: if that is right, read it with data.options.encoding (`--option encoding=cp1252`), else "
        f"save the table as `CSV UTF-8`."
    )


def _separator(text: str) -> tuple[str, str]:
    """The separator of the columns, and the text without a line that declares it.

    It is the character that the header has most of, because headers rarely hold separators of another kind.
    """
    first, _, rest = text.partition("\n")
    declared = first.strip().strip('"')
    if declared.lower().startswith(_EXCEL_SEPARATOR) and len(declared) == len(_EXCEL_SEPARATOR) + 1:
        return declared[-1], rest
    header = next((line for line in text.splitlines() if line.strip()), "")
    counts = {separator: len(next(csv.reader([header], delimiter=separator))) for separator in _SEPARATORS}
    return max(counts, key=counts.__getitem__), text


def _records(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, header first, each with the line that it ends in."""
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records = []
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append((reader.line_num, record))
    except csv.Error as error:
        last = records[-1][0] if records else 0
        raise InputError(
            f"{path}, row {len(records)} (from line {last + 1}): cannot be read ({error}); a quotation mark in it is "
            f'neither closed nor doubled, as in "he said ""no""".'
        ) from None
    return records


def _names(path: Path, header: list[str]) -> list[str]:
    """The names of the columns, without blanks around them; the unnamed ones are numbered, as pandas does."""
    names = [cell.strip().strip("\ufeff").strip() for cell in header]
    names = [name or f"Unnamed: {number}" for number, name in enumerate(names)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: {repeated[0]!r} is the name of several columns; rename one of them.")
    return names


def _cells(path: Path, number: int, record: tuple[int, list[str]], names: list[str]) -> list[str]:
    """The cells of a row, one per column."""
    line, cells = record
    if any(cell.strip() for cell in cells[len(names) :]):
        raise InputError(
            f"{path}, row {number} (line {line}): has {len(cells)} cells where the header has {len(names)}; put "
            f"quotation marks around a cell that holds the separator."
        )
    return cells[: len(names)] + [""] * (len(names) - len(cells))


def _frame(rows: list[list[str]], names: list[str], path: Path) -> pd.DataFrame:
    """The table without columns that have neither name nor content."""
    table = pd.DataFrame(rows, columns=names, dtype=str)
    unnamed = [name for name in names if name.startswith("Unnamed: ")]
    empty = [name for name in unnamed if not table[name].str.strip().any()]
    table = table.drop(columns=empty)
    if table.columns.empty:
        raise InputError(f"{path}: no column has a name; the first line should hold the names of the columns.")
    return table


def _short_rows(path: Path, records: list[tuple[int, list[str]]]) -> list[str]:
    """A note on rows with fewer cells than the header, whose last cells are taken as empty."""
    width = len(records[0][1])
    while width and not records[0][1][width - 1].strip():
        width -= 1  # columns without a name at the end
    short = [number for number, (_, cells) in enumerate(records[1:], start=1) if len(cells) < width]
    if not short:
        return []
    return [f"{path}: {len(short)} rows have fewer cells than the header, the rest is taken as empty: row {short[0]}"]


def _long_cells(path: Path, table: pd.DataFrame) -> list[str]:
    """A note on cells of several lines: a quotation mark that is not closed makes one cell of several rows."""
    lines = table.apply(lambda column: column.str.count(r"\r\n|\r|\n"))
    extra = int(lines.to_numpy().sum())
    if not extra:
        return []
    row = int((lines.sum(axis=1) > 0).to_numpy().argmax())
    column = lines.columns[int((lines.iloc[row] > 0).to_numpy().argmax())]
    return [
        f"{path}: {extra} lines are parts of cells with line breaks, not rows of their own: row {row + 1}, column "
        f"{column!r}; if they should be rows, a quotation mark is missing there"
    ]


# --- Excel ---


def _read_workbook(path: Path) -> Table:
    try:
        sheets: dict[Any, pd.DataFrame] = pd.read_excel(path, sheet_name=None, dtype=str, keep_default_na=False)
    except ImportError:
        raise InputError(f"{path}: reading .xlsx needs `pip install openpyxl`; or save it as `CSV UTF-8`.") from None
    except Exception as error:  # of zip, XML and openpyxl, which raises whatever a damaged file leads to
        raise InputError(f"{path}: cannot be read as xlsx ({' '.join(str(error).split())}).") from None
    name, table = next(iter(sheets.items()))
    table = table[(table != "").any(axis=1)]
    names = _names(path, [str(column) for column in table.columns])
    notes = [
        f"{path}: sheet {other!r} is not read, only {name!r} is" for other in list(sheets)[1:] if len(sheets[other])
    ]
    return Table(_frame(table.to_numpy().tolist(), names, path), notes)
