"""Run transformers' own test suites over our model and processor.

transformers ships no tests in its package. `SNAPSHOT` is the root of a checkout of it (or of a fork), of which only
`tests/` is read; its requirements for tests, as `parameterized`, must be importable. Writes one test file into
`SNAPSHOT/tests/models/merhan`, runs it for every backbone pair and fusion, and prints a table; with `--write` also to
docs/transformers-suites.md.

    python benchmarks/transformers_suites.py ../transformers --write
"""

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import transformers
from common import REPOSITORY, publish
from transformers_harness import NOT_APPLICABLE, NOT_APPLICABLE_TO_PROCESSOR, NOT_APPLICABLE_TO_UPSTREAM, PAIRS

from modeling_merhan import FUSIONS


HARNESS = '''"""Written by benchmarks/transformers_suites.py."""
import unittest

from transformers_harness import ModelTests, ProcessorTests

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin
from ...test_processing_common import ProcessorTesterMixin


class MerhanModelTest(ModelTests, ModelTesterMixin, unittest.TestCase):
    config_tester_class = ConfigTester


class MerhanProcessorTest(ProcessorTests, ProcessorTesterMixin, unittest.TestCase):
    pass
'''
OUTCOMES = ("passed", "failed", "not applicable", "skipped by the suite")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path, help="the root of a checkout of transformers")
    parser.add_argument("--write", action="store_true", help="write the table to docs/transformers-suites.md")
    arguments = parser.parse_args()
    folder = arguments.snapshot / "tests" / "models" / "merhan"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "test_merhan.py").write_text(HARNESS, encoding="utf-8")
    rows = {f"{pair} x hybrid": run(arguments.snapshot, pair, "hybrid") for pair in PAIRS}
    first = next(iter(PAIRS))
    others = [fusion for fusion in FUSIONS if fusion != "hybrid"]
    rows |= {f"{first} x {fusion}": run(arguments.snapshot, first, fusion) for fusion in others}
    publish("transformers-suites", table(rows), arguments.write, REPOSITORY / "docs" / "transformers-suites.md")


def run(snapshot: Path, pair: str, fusion: str) -> Counter:
    """The number of tests by outcome; prints what failed."""
    environment = {**os.environ, "MERHAN_PAIR": pair, "MERHAN_FUSION": fusion}
    paths = [str(REPOSITORY / "benchmarks"), str(REPOSITORY), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        options = ["-q", "--no-header", "--disable-warnings", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", "tests/models/merhan", *options]
        process = subprocess.run(command, cwd=snapshot, env=environment, capture_output=True, text=True, check=False)
        if process.returncode > 1 or not report.is_file():  # 1: a test failed
            sys.exit(f"error: pytest could not run in {snapshot}: {process.stdout[-2000:]}{process.stderr[-2000:]}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes = {f"{case.get('classname')}.{case.get('name')}": outcome(case) for case in cases}
    for name, result in outcomes.items():
        if result == "failed":
            print(f"{pair} x {fusion}: {name} failed", flush=True)
    return Counter(outcomes.values())


def outcome(case: ElementTree.Element) -> str:
    """One of `OUTCOMES`."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    if skipped.get("message", "").startswith("not applicable: "):
        return "not applicable"
    return "skipped by the suite"


def table(rows: dict[str, Counter]) -> str:
    """Markdown: a row for each configuration, and what does not apply with its reason."""
    lines = [
        f"`python benchmarks/transformers_suites.py SNAPSHOT`, with transformers {transformers.__version__}:",
        "",
        "| backbones x fusion | " + " | ".join(OUTCOMES) + " |",
        "| --- |" + " ---: |" * len(OUTCOMES),
    ]
    for name, counts in rows.items():
        lines.append(f"| {name} | " + " | ".join(str(counts[result]) for result in OUTCOMES) + " |")
    lines += ["", "| not applicable | reason |", "| --- | --- |"]
    reasons = {**NOT_APPLICABLE, **NOT_APPLICABLE_TO_UPSTREAM, **NOT_APPLICABLE_TO_PROCESSOR}
    lines += [f"| `{test}` | {reason} |" for test, reason in reasons.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
