"""The documents agree with the code: links, commands, recipes, generated pages, the notebook and the site."""

import argparse
import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import dropwhile

import pytest
import reference
import yaml
from documents import DOCUMENTS, PROJECT, STOOD_IN, blocks, commands

import merhan
from merhan.cli import evaluate, train
from merhan.cli.main import build_parser
from merhan.experiments.plan import read_experiment
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import Recipe


LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULES_OF_OTHERS = {"venv", "pytest"}
PROGRAMS_OF_OTHERS = {"pip", "hf", "git", ".", "pre-commit"}
# Programs that are written into a folder of the user -> where they lie here.
WRITTEN = {"run_onnx.py": "hub_card/onnx/run_onnx.py", "handler.py": "hub_card/handler.py"}
ENTRY_POINTS = {"train_hf_e2e.py": train, "evaluate_hf_e2e.py": evaluate}


def exits(action, *arguments) -> str:
    """The message with which a parser refuses its arguments; empty if it accepts them."""
    try:
        action(*arguments)
    except (SystemExit, argparse.ArgumentError) as error:
        return f"refused ({error})"
    return ""


def refusal(words: list[str]) -> str:
    """Why a command line cannot be run; empty if its parser accepts it or it is a known program of others."""
    words = list(dropwhile(re.compile(r"[A-Z_]+=").match, words))  # environment variables before the command
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if set(words[1:]) <= set(targets) else "no such target"
    if words[0] == "merhan":
        return exits(build_parser().parse_args, words[1:])
    if words[0] == "accelerate" and "-m" in words:
        words = ["python", *words[words.index("-m") :]]
    if words[:2] == ["python", "-m"]:
        if words[2] == "merhan":
            return exits(build_parser().parse_args, words[3:])
        return "" if words[2] in MODULES_OF_OTHERS else f"unknown module {words[2]}"
    if words[0] not in ("python", "accelerate"):
        return "" if words[0] in PROGRAMS_OF_OTHERS else f"unknown program {words[0]}"
    scripts = [number for number, word in enumerate(words) if word.endswith(".py")]
    if not scripts:
        return "no script"
    return refused_script(words[scripts[0]], words[scripts[0] + 1 :])


def refused_script(script: str, arguments: list[str]) -> str:
    """Why a script of this project cannot be run; of a benchmark, options are looked up in its source."""
    script = WRITTEN.get(script.rpartition("/")[2], script)
    if not (PROJECT / script).is_file():
        return f"there is no {script}"
    if script in ENTRY_POINTS:
        parser = argparse.ArgumentParser()
        ENTRY_POINTS[script].add_arguments(parser)
        return exits(parser.parse_args, arguments)
    source = (PROJECT / script).read_text(encoding="utf-8")
    unknown = [word for word in arguments if word.startswith("--") and f'"{word}"' not in source]
    return f"no option {unknown[0]}" if unknown else ""


def test_readme_is_short():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_between_documents_resolve(document):
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    missing = [target for target in local if not (document.parent / target).exists()]
    assert missing == []


def test_generated_reference_is_current():
    for name, page in reference.PAGES.items():
        written = (reference.FOLDER / name).read_text(encoding="utf-8")
        assert written == page(), f"docs/reference/{name} is out of date: run python benchmarks/reference.py"


def test_reference_explains_every_key_of_a_recipe():
    page = "\n\n".join(reference.recipe_sections(Recipe, ""))
    keys = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE)
    assert len(keys) > 60
    assert [key for key, meaning in keys if not meaning.strip()] == []


def test_documented_commands_are_accepted_by_the_parsers():
    refused = [f"{place}: {shlex.join(words)}: {refusal(words)}" for place, words in commands() if refusal(words)]
    assert refused == []
    programs = {words[0] for _, words in commands()}
    assert {"merhan", "python", "accelerate", "make"} <= programs, "commands of every kind were found"


@pytest.mark.parametrize(
    "line",
    [
        "merhan prepare nowhere /data out",
        "merhan publish outputs/quickstart",
        "python train_hf_e2e.py --config a.yaml --dryrun",
        "accelerate launch evaluate_hf_e2e.py --checkpoint a --modalities video",
        "accelerate launch --num_processes 2 -m merhan trian",
        "python benchmarks/nothing.py",
        "python benchmarks/padding.py --nope",
        "python -m merhann train",
        "python -m merhan trian",
        "MERHAN_CACHE=/x merhan trian",
        "python3 train_hf_e2e.py --config a.yaml",
        "make nothing",
    ],
)
def test_a_wrong_command_would_be_refused(line, capsys):
    assert refusal(shlex.split(line))


EXAMPLES = [block for block in blocks("python") if not block.place.startswith("docs/reference")]  # those are signatures


BENCHMARKS = sorted((PROJECT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("program", BENCHMARKS, ids=lambda program: program.stem)
def test_what_a_benchmark_imports_exists(program):
    """Also within functions, which run for minutes before some of them import."""
    for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module, names = importlib.import_module(str(node.module)), [alias.name for alias in node.names]
            absent = [name for name in names if not hasattr(module, name)]
            assert [name for name in absent if not importlib.util.find_spec(f"{node.module}.{name}")] == []


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.place)
def test_documented_python_is_valid_and_its_imports_exist(block, monkeypatch):
    for script in WRITTEN.values():
        monkeypatch.syspath_prepend((PROJECT / script).parent)
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module not in STOOD_IN:
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "merhan":
            assert node.attr in merhan.__all__


def test_what_is_documented_to_be_installed_is_enough_for_a_command():
    pages = [*DOCUMENTS, *(PROJECT / "merhan" / "cli").glob("*.py"), PROJECT / "notebooks" / "quickstart.ipynb"]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"(?:merhan|\.)\[([a-z,]+)\]", page.read_text("utf-8"))
    }
    assert len(named) > 5
    assert [(page, name) for page, name in sorted(named) if "train" not in name.split(",")] == []


def test_documented_configurations_exist():
    named = {
        path for document in DOCUMENTS for path in re.findall(r"configs/[\w/-]+\.yaml", document.read_text("utf-8"))
    }
    assert len(named) > 30
    assert [path for path in sorted(named) if not (PROJECT / path).is_file()] == []


def test_recipes_page_names_every_configuration():
    page = (PROJECT / "docs" / "recipes.md").read_text(encoding="utf-8")
    files = [*PROJECT.glob("configs/*.yaml"), *PROJECT.glob("configs/experiments/*.yaml")]
    assert [path.name for path in files if f"`{path.relative_to(PROJECT).as_posix()}`" not in page] == []


def test_corpora_page_names_every_reader_and_protocol():
    page = (PROJECT / "docs" / "corpora.md").read_text(encoding="utf-8")
    protocols = [path.stem for path in PROJECT.glob("configs/protocols/*.yaml")]
    assert [name for name in [*reference.CORPORA, *protocols] if f"`{name}`" not in page] == []


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_documented_recipes_and_experiments_load(block, tmp_path):
    shutil.copytree(PROJECT / "configs", tmp_path / "configs")
    if "\nrows:" in block.text:
        file = tmp_path / "configs" / "experiments" / "documented.yaml"
        file.write_text(block.text, encoding="utf-8")
        assert read_experiment(file).rows
    else:
        file = tmp_path / "documented.yaml"
        file.write_text(block.text, encoding="utf-8")
        assert load_recipe(file).stages


def test_changelog_names_modules_that_exist():
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(merhan[.\w]+)` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) > 30
    modules = [name for _, targets in rows for name in re.findall(r"`(merhan[.\w]+)`", targets)]
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_citation_names_the_paper_and_its_authors():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = citation["preferred-citation"]
    assert (paper["doi"], paper["volume"], paper["start"]) == ("10.1016/j.bspc.2023.105052", 85, "105052")
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Zhang", "Yang", "Chen", "Liu", "Tao", "Guo", "Xu", "Zhao"]
    assert "10.1016/j.bspc.2023.105052" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_workflow_and_issue_forms_are_valid_yaml():
    files = sorted((PROJECT / ".github").rglob("*.yml"))
    assert len(files) >= 3
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        for job in content.get("jobs", {}).values():
            steps = [step["run"] for step in job["steps"] if step.get("run", "").startswith("make")]
            assert [refusal(step.split()[:2]) for step in steps] == [""] * len(steps)


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    remote = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    assert [hit for page in pages for hit in remote.findall(page.read_text(encoding="utf-8"))] == []
    styles = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.css")]
    assert not any(re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style) for style in styles)
    results = (tmp_path / "results.html").read_text(encoding="utf-8")
    assert "without global" in results, "the page holds the content of RESULTS.md"


def test_the_notebook_runs(tmp_path):
    """All code cells in their order, in a fresh process, in a folder like `notebooks`, without the installation."""
    notebook = json.loads((PROJECT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert sum(source.startswith("%pip install") for source in sources) == 1
    code = "\n\n".join(source for source in sources if not source.startswith("%pip install"))
    checks = 'assert {"test", "test--audio", "test--text"} <= set(metrics)\nassert len(predictions) == len(test)\n'
    shutil.copytree(PROJECT / "configs", tmp_path / "configs")
    (tmp_path / "notebooks").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n\n{checks}"],
        cwd=tmp_path / "notebooks",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'label': 'joy'" in done.stdout
