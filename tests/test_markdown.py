# ruff: noqa: F811 (the fixture `run` is imported)
"""Names and quotes that hold markup are shown as they are, in every table, list and heading of Markdown."""

import json
import re
from html import unescape

import pytest
from huggingface_hub import ModelCard
from test_publishing import run  # noqa: F401 (a fixture)

from merhan.evaluation.report import bullet_list, write_report
from merhan.hub.model_folder import export_model_folder
from merhan.recipe.loading import load_recipe
from merhan.reporting.markdown_tables import code_span, escape_markdown, markdown_table


PIECES = ("|", "\n", "\r\n", "`", "```", "<script>x()</script>", "<img src=x>", "[a](javascript:b)", "**", "\\|")
HOSTILE = [f"{first}name{second}" for first in PIECES for second in PIECES] + ["&lt;b&gt;", "![a](b)", "\u2028# x"]
HARMLESS = ["snake_case_name", "R&B", "a < b", "0.612 [0.580, 0.645]", "it's 5 % (so)", "#1", "müde"]


def shows_as(markdown: str, name: str):
    assert not re.search(r"[\n|`*\\]|<[A-Za-z/!]|\[a\]\(", markdown), (name, markdown)
    assert re.sub(r"\s", "", unescape(markdown)) == re.sub(r"\s", "", name), (name, markdown)


def test_hostile_names_lose_their_markup_and_keep_their_characters():
    for name in HOSTILE[:-3]:
        shows_as(escape_markdown(name), name)
    assert escape_markdown("&lt;b&gt;") == "&#38;lt;b&#38;gt;"
    assert "](" not in escape_markdown("![a](b)") or "[" not in escape_markdown("![a](b)")


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names_stay_as_they_are(name):
    assert escape_markdown(name) == name


def test_a_table_keeps_its_shape():
    for name in HOSTILE:
        lines = markdown_table([name, "n"], [[name, 1], ["plain", 2]]).splitlines()
        assert [line.count("|") for line in lines] == [3] * 4, name
        assert len(bullet_list([name, name]).splitlines()) == 2
        assert "\n" not in code_span(name) and "<script" not in code_span(name)


def test_report_and_card_hold_no_markup_of_hostile_names(run, trained_like, processor, tmp_path):
    path = run / "evaluation" / "test" / "metrics.json"
    figures = json.loads(path.read_text())
    name = "".join(PIECES)
    figures |= {"labels": [name, *figures["labels"][1:]], "corpora": [name], "notes": [name]}
    figures["protocol"] |= {"leaks": [name], "name": name}
    figures["groups"] = {column: [{**group[0], "name": name}] for column, group in figures["groups"].items()}
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["data"]["corpora"] = [name]
    provenance["protocol"] = figures["protocol"]
    (run / "provenance.json").write_text(json.dumps(provenance))
    recipe = load_recipe(run / "recipe.yaml", ["hub.quote_people=true"])
    recipe.run_name = name
    export_model_folder(run, recipe, trained_like.eval(), processor, {name: figures})
    write_report(figures, name, tmp_path / "report.md")
    card = ModelCard.load(run / "model" / "README.md").text
    for text in (card, (tmp_path / "report.md").read_text()):
        assert "<script" not in text and "<img" not in text and "[a](" not in text
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert {line[-1] for line in tables} == {"|"}
        assert [line for line in text.splitlines() if line.startswith("# ")] == [text.strip().splitlines()[0]]
