"""Function lengths, dense expressions, import direction and words stay within the limits of benchmarks/structure.py."""

import subprocess
import sys

import pytest
import structure


FILES = structure.python_files([])
FIGURES = structure.measure(FILES)


@pytest.mark.parametrize("name", structure.LIMITS)
def test_figures_are_within_their_limits(name):
    assert FIGURES[name] <= structure.LIMITS[name]


def test_imports_follow_the_order_of_the_packages_without_a_cycle():
    graph = structure.imports()
    assert len(graph) > 80, "the graph covers the package"
    assert structure.upward_imports(graph) == []
    assert structure.cycles(graph) == []


def test_an_upward_import_and_a_cycle_would_be_found():
    graph = {"merhan.data.a": {"merhan.training.b"}, "merhan.training.b": {"merhan.data.a"}}
    assert structure.upward_imports(graph) == ["merhan.data.a imports merhan.training.b"]
    assert structure.cycles(graph) == ["merhan.data.a -> merhan.training.b -> merhan.data.a"]


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("from merhan import api", "merhan.api"),
        ("import merhan.cli.main", "merhan.cli.main"),
        ("import merhan.cli.main as main", "merhan.cli.main"),
        ("from merhan.data import protocols", "merhan.data.protocols"),
        ("def load():\n    from merhan.api import train", "merhan.api"),
    ],
)
def test_every_form_of_import_is_seen(line, module):
    assert module in structure.imported_modules(line, structure.imports())


def test_names_and_sentences_are_plain():
    assert structure.unclear_names(FILES) == []
    assert structure.private_phrases(structure.text_files()) == []


@pytest.mark.parametrize("phrase", ["the audio door", "hangs on", "mend it", "stands twice", "hf_v5 F1"])
def test_a_private_phrase_would_be_found(phrase, tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "PROJECT", tmp_path)
    (tmp_path / "page.md").write_text(f"A line.\nHere is {phrase}.\n")
    (place,) = structure.private_phrases([tmp_path / "page.md"])
    assert place.startswith("page.md:2")


@pytest.mark.parametrize("program", [["train_hf_e2e.py"], ["evaluate_hf_e2e.py"], ["-m", "merhan"]])
def test_help_does_not_import_torch(program):
    """Imports are lazy: no program loads torch, transformers or pandas to print its help."""
    code = (
        "import runpy, sys; sys.argv = ['program', '--help']\n"
        "try:\n"
        f"    runpy.run_{'module' if program[0] == '-m' else 'path'}({program[-1]!r}, run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0\n"
        "loaded = {'torch', 'transformers', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=structure.PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "transformers", "pandas", "numpy"}
    code = f"import merhan, sys; assert not {heavy} & set(sys.modules); assert 'train' in dir(merhan)"
    subprocess.run([sys.executable, "-c", code], cwd=structure.PROJECT, check=True)


def test_every_public_name_can_be_imported():
    import merhan

    for name in merhan.__all__:
        assert getattr(merhan, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        merhan.trian  # noqa: B018
