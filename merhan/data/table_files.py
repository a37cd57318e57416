"""Reading of tables: Parquet, CSV, TSV and JSONL."""

from pathlib import Path

import pandas as pd

from merhan.errors import InputError


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a Parquet, CSV, TSV or JSONL file; cells of CSV and TSV files stay strings.

    Raises:
        InputError: the file does not exist, has another suffix or cannot be parsed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; check the path, or make one with `merhan prepare`.")
    readers = {
        ".parquet": pd.read_parquet,
        ".csv": lambda file: pd.read_csv(file, dtype=str, keep_default_na=False),
        ".tsv": lambda file: pd.read_csv(file, dtype=str, keep_default_na=False, sep="\t"),
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, convert_dates=False),
    }
    if path.suffix not in readers:
        suffix = path.suffix or "a file without a suffix"
        raise InputError(f"{path}: a table must be one of {', '.join(readers)}, not {suffix}.")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({error}).") from None
