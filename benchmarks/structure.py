"""Print what keeps the code readable: function lengths, dense expressions, import direction, words.

    python benchmarks/structure.py                   the whole project
    python benchmarks/structure.py merhan/data       one folder or file

`tests/test_structure.py` holds the project to `LIMITS`.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


PROJECT = Path(__file__).parent.parent

# The packages of `merhan`, in the order in which data flows: a module imports from its own package or from those
# before it.
LAYERS = (
    "errors",
    "names",
    "files",
    "content_hashes",
    "hub_ids",
    "logs",
    "metrics",
    "reporting",
    "recipe",
    "data",
    "models",
    "prediction",
    "training",
    "evaluation",
    "experiments",
    "hub",
    "api",
    "cli",
)
LIMITS = {
    "median function, lines": 12,
    "90 % of functions, lines": 40,
    "longest function but a forward, lines": 60,
    "conditional expressions per 1,000 lines": 9,
    "assignment expressions per 1,000 lines": 1,
}
# Identifiers that name nothing, and phrases of a private language. `room` is the acoustic one in these files alone.
NAMES = {"given", "found", "one", "kept", "told", "called", "spoil", "spoilt", "farewell", "in_words", "room", "door"}
PHRASES = re.compile(
    r"\b((?<!by the )doors?|workshop|(?<!that )house|farewell|hf_v5|hang(s|ing)? on|mend(s|ed|ing)?|stands? twice"
    r"|goes on where|in words of its own|taken for which|(hub|model) floor|spoil(s|t|ed|ing)?)\b",
    re.IGNORECASE,
)
ACOUSTIC = ("augmentation", "robustness", "schema")


class Function(NamedTuple):
    """A function or method."""

    place: str  # file:line name
    name: str
    lines: int


def python_files(paths: Sequence[str]) -> list[Path]:
    """The Python files of the package and the entry points, or those below the given paths."""
    if not paths:
        top = [
            "configuration_merhan.py",
            "modeling_merhan.py",
            "processing_merhan.py",
            "train_hf_e2e.py",
            "evaluate_hf_e2e.py",
        ]
        return [*sorted((PROJECT / "merhan").rglob("*.py")), *(PROJECT / name for name in top)]
    files = []
    for path in map(Path, paths):
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [file.resolve() for file in files]


def functions(file: Path) -> Iterator[Function]:
    """Every function of a file with its length, docstring included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            place = f"{file.relative_to(PROJECT)}:{node.lineno} {node.name}"
            yield Function(place, node.name, node.end_lineno - node.lineno + 1)


def measure(files: Sequence[Path]) -> dict[str, float]:
    """The figures of `LIMITS`."""
    lengths = [function for file in files for function in functions(file)]
    lines, conditionals, assignments = 0, 0, 0
    for file in files:
        source = file.read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(source)))
        lines += len(source.splitlines())
        conditionals += sum(isinstance(node, ast.IfExp) for node in nodes)
        assignments += sum(isinstance(node, ast.NamedExpr) for node in nodes)
    sizes = [function.lines for function in lengths] or [0]
    others = [function.lines for function in lengths if function.name != "forward"] or [0]
    figures = (
        float(np.median(sizes)),
        float(np.quantile(sizes, 0.9)),
        float(max(others)),
        1000 * conditionals / lines,
        1000 * assignments / lines,
    )
    return dict(zip(LIMITS, figures, strict=True))


def imports() -> dict[str, set[str]]:
    """Module of `merhan` -> the modules of `merhan` that it imports, also within functions."""
    files = {}
    for file in sorted((PROJECT / "merhan").rglob("*.py")):
        files[".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")] = file
    return {module: imported_modules(file.read_text(encoding="utf-8"), files) for module, file in files.items()}


def imported_modules(source: str, modules: Container[str]) -> set[str]:
    """Those of `modules` that some source code imports, whichever form of import it uses."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parent = name.rpartition(".")[0]
            imported |= {candidate for candidate in (name, parent) if candidate in modules}
    return imported


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a later package by an earlier one."""
    wrong = []
    for module, targets in graph.items():
        for target in targets:
            layers = [name.split(".")[1] if "." in name else "cli" for name in (module, target)]
            if layers[0] in LAYERS and LAYERS.index(layers[1]) > LAYERS.index(layers[0]):
                wrong.append(f"{module} imports {target}")
    return wrong


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves over others."""
    circular, finished = [], set()

    def visit(module: str, path: list[str]):
        if module in path:
            circular.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in finished:
            for target in sorted(graph.get(module, ())):
                visit(target, [*path, module])
            finished.add(module)

    for module in graph:
        visit(module, [])
    return circular


def unclear_names(files: Sequence[Path]) -> list[str]:
    """Functions, arguments and variables whose name is one of `NAMES`."""
    places = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = {
                ast.FunctionDef: lambda node: node.name,
                ast.arg: lambda node: node.arg,
                ast.Name: lambda node: node.id if isinstance(node.ctx, ast.Store) else "",
            }
            name = names.get(type(node), lambda node: "")(node)
            if name in NAMES and not (name == "room" and file.stem.endswith(ACOUSTIC)):
                places.append(f"{file.relative_to(PROJECT)}:{node.lineno} {name}")
    return places


def private_phrases(files: Sequence[Path]) -> list[str]:
    """Lines with a phrase of `PHRASES`."""
    places = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            match = PHRASES.search(line)
            if match:
                places.append(f"{file.relative_to(PROJECT)}:{number} {match[0]}: {line.strip()[:90]}")
    return places


def text_files() -> list[Path]:
    """Everything that people read: tracked code, documents, recipes and templates, but for the changelog and this."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    suffixes = (".py", ".md", ".yaml", ".yml", ".jinja", ".toml", ".ipynb", ".cff", "Makefile")
    names = [name for name in listed.splitlines() if name.endswith(suffixes)]
    skipped = ("CHANGELOG.md", "benchmarks/structure.py", "tests/test_structure.py")
    return [PROJECT / name for name in names if name not in skipped and (PROJECT / name).is_file()]


def main(paths: Sequence[str]):
    """Print every figure, and where the limits are broken."""
    files = python_files(paths)
    for name, value in measure(files).items():
        print(f"{value:8.1f}  {name} (at most {LIMITS[name]})")
    long = sorted((function for file in files for function in functions(file)), key=lambda function: -function.lines)
    print("longest:", *(f"\n  {function.lines:4d}  {function.place}" for function in long[:12]))
    graph = imports()
    texts = [file for file in text_files() if not paths or file.resolve() in files]
    lists = {
        "upward imports": upward_imports(graph),
        "import cycles": cycles(graph),
        "unclear names": unclear_names(files),
        "private phrases": private_phrases(texts),
    }
    for name, places in lists.items():
        print(f"{len(places):8d}  {name}", *(f"\n          {place}" for place in places[:400]))


if __name__ == "__main__":
    main(sys.argv[1:])
