"""Lint the three files that travel to the Hub with transformers' own model linter (`make lint`).

Two rules do not fit a file outside the library: TRF057 wants `@auto_docstring`, which prints errors at import there,
and TRF045 wants `output_attentions` to come from decorators that return nothing under sdpa, where ours gives the maps.
"""

import sys
from pathlib import Path

from mlinter import mlinter


FILES = ("configuration_merhan.py", "modeling_merhan.py", "processing_merhan.py")
UNFIT = {"TRF045", "TRF057"}


def main():
    rules = mlinter.DEFAULT_ENABLED_TRF_RULES - UNFIT
    found = [
        violation for name in FILES for violation in mlinter.analyze_file(Path(name), Path(name).read_text(), rules)
    ]
    for violation in found:
        print(f"{violation.file_path}:{violation.line_number}: {violation.message}")
    print(f"mlinter: {len(rules)} rules, {len(found)} violations")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
