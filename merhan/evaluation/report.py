"""The report of one evaluation, as Markdown and as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from merhan.data.audio_facts import segment_bounds
from merhan.data.corpora import CORPORA
from merhan.data.corpora.base import corpus_reader
from merhan.evaluation.prediction_table import FEWEST_ROWS
from merhan.evaluation.report_charts import reliability_chart, risk_coverage_chart, training_charts
from merhan.evaluation.run_description import ModelSource, header_facts, report_title
from merhan.files import write_text
from merhan.names import SCORE_TITLES
from merhan.reporting.markdown_tables import (
    CALIBRATION_HEADER,
    DIMENSIONS_HEADER,
    RISK_COVERAGE_HEADER,
    calibration_rows,
    calibration_table,
    class_table,
    confusion_table,
    dimension_rows,
    escape_markdown,
    faultless_note,
    interval_note,
    markdown_table,
    risk_coverage_note,
    risk_coverage_rows,
    risk_coverage_table,
    scores_table,
    votes_note,
)
from merhan.reporting.pages import audio_data_url, render
from merhan.training.stage_history import StageHistory, read_history
from processing_merhan import load_audio


MOST_GROUPS = 12  # shown of each kind of group, for instance of the speakers

MOST_ERRORS = 10


def write_page(
    metrics: Mapping[str, Any],
    predictions: pd.DataFrame,
    rows: pd.DataFrame,
    source: ModelSource,
    path: Path,
):
    """Write the report as an HTML page that needs no other file.

    Args:
        metrics: content of `metrics.json`.
        predictions: content of `predictions.parquet`.
        rows: manifest rows in the order of `predictions`. Their audio is embedded if the corpus may be redistributed.
        source: the run that trained the model.
        path: the file to write.
    """
    page = render(
        "evaluation.html.jinja",
        title=report_title(source.name, metrics),
        header=header_facts(source.name, metrics),
        metrics=metrics,
        titles=SCORE_TITLES,
        interval_note=interval_note(metrics),
        groups=group_sections(metrics),
        **_confidence_context(metrics),
        dimensions_header=DIMENSIONS_HEADER,
        dimension_rows=dimension_rows(metrics),
        votes_note=votes_note(metrics),
        errors=confident_errors(metrics, predictions, rows),
        stages=[_stage_section(stage) for stage in read_history(source.run)],
        provenance=provenance_facts(source.provenance),
        command=_training_command(source.run),
    )
    write_text(path, page)


def _confidence_context(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the sections on calibration and risk-coverage show."""
    return {
        "calibration_header": CALIBRATION_HEADER,
        "calibration_rows": calibration_rows(metrics),
        "reliability": reliability_chart(metrics),
        "risk_coverage_header": RISK_COVERAGE_HEADER,
        "risk_coverage_rows": risk_coverage_rows(metrics),
        "risk_coverage_note": risk_coverage_note(metrics),
        "risk_coverage": risk_coverage_chart(metrics),
    }


def group_sections(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores by speaker, corpus, gender, language and duration, the lowest UAR first.

    Returns:
        `column`, `note` and `rows` of each section; no rows if all groups have the same scores.
    """
    sections = []
    for column, groups in metrics["groups"].items():
        scores = {f"WAR {group['war']:.3f}, UAR {group['uar']:.3f}" for group in groups}
        note, rows = "", groups[:MOST_GROUPS]
        if len(scores) == 1:
            note, rows = f"All groups ({len(groups)}) have the same scores: {scores.pop()}.", []
        elif len(groups) > MOST_GROUPS:
            note = f"The {MOST_GROUPS} lowest of {len(groups)} by UAR; groups under {FEWEST_ROWS} utterances come last."
        sections.append({"column": column, "note": note, "rows": rows})
    return sections


def confident_errors(metrics: Mapping[str, Any], predictions: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Wrong predictions with the highest calibrated confidence, with the audio and text that the model was given."""
    logits = np.stack(predictions["logits"].to_list()) / predictions["temperature"].to_numpy()[:, None]
    confidence = softmax(logits, axis=1).max(axis=1)
    wrong = predictions["label"] != predictions["prediction"]
    worst = predictions.assign(confidence=confidence)[wrong].nlargest(MOST_ERRORS, "confidence")
    inputs = rows.loc[worst.index].reindex(columns=["corpus", "audio", "start", "end", "text"])
    errors = []
    for error, row in zip(worst.to_dict("records"), inputs.to_dict("records"), strict=True):
        text, audio = "", None
        if "text" in metrics["modalities"]:
            text = row["text"] or ""
        if "audio" in metrics["modalities"]:
            audio = _redistributable_audio(row)
        errors.append({**error, "text": text, "audio": audio})
    return errors


def _redistributable_audio(row: Mapping[Any, Any]) -> str | None:
    """The utterance as a data URL; None without audio, or if the corpus may not be redistributed."""
    if row["corpus"] not in CORPORA or not row["audio"]:
        return None
    about = getattr(corpus_reader(row["corpus"]), "ABOUT", None)
    if about is None or not about.shareable:
        return None
    return audio_data_url(load_audio(row["audio"], *segment_bounds(row["start"], row["end"])))


def _stage_section(stage: StageHistory) -> dict[str, Any]:
    summary = (
        f"{len(stage.epochs)} epochs, {stage.seconds / 60:.1f} minutes (since the last start or resume), peak memory "
        f"{stage.peak_memory:.1f} GiB."
    )
    if stage.epochs:
        last = stage.epochs[-1]
        summary += f" Last epoch: validation UAR {last['uar']:.3f}, validation loss {last['validation_loss']:.3f}."
    return {"name": stage.name, "summary": summary, "charts": training_charts(stage)}


def provenance_facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Code, versions, hardware and training data of a run, as title -> value; empty if unknown."""
    if not provenance:
        return {}
    data, packages = provenance["data"], provenance["packages"]
    return {
        "Commit": provenance["commit"] or "unknown",
        "Seed": str(provenance["seed"]),
        "Hardware": provenance["hardware"],
        "Python": provenance["python"],
        **{name: packages[name] for name in ("torch", "transformers", "accelerate") if packages.get(name)},
        "Corpora": ", ".join(data["corpora"]),
        "Rows": ", ".join(f"{count} {split}" for split, count in data["splits"].items()),
        "Data fingerprint": data["fingerprint"],
    }


def _training_command(run: Path) -> str:
    file = run / "command.txt"
    if not file.is_file():
        return ""
    return file.read_text(encoding="utf-8").strip()


def write_report(metrics: Mapping[str, Any], name: str, path: Path):
    """Write the report as Markdown, with the plots beside it.

    Args:
        metrics: content of `metrics.json`.
        name: of the model.
        path: the file to write.
    """
    facts = [f"{key}: {value}" for key, value in header_facts(name, metrics).items() if value]
    parts = [
        f"# {escape_markdown(report_title(name, metrics))}",
        bullet_list(facts),
        f"## Scores\n\n{scores_table({metrics['condition']: metrics})}\n\n{interval_note(metrics)}",
        *_section("Rows and sound left out", bullet_list(metrics["notes"])),
        *_section("Known leaks", bullet_list(metrics["protocol"]["leaks"])),
        "## Confusion matrix\n\nRows are labels, columns are predictions.",
        confusion_table(metrics),
        "![confusion matrix](confusion.png)",
        f"## Per-class scores\n\n{class_table(metrics)}",
        f"## Calibration\n\n{calibration_table(metrics)}\n\n![reliability diagram](reliability.png)",
        faultless_note(metrics),
        f"## Risk-coverage\n\n{risk_coverage_note(metrics)}",
        risk_coverage_table(metrics),
        *_section("Emotional dimensions", _dimensions_table(metrics)),
        *_section("Annotator votes", votes_note(metrics)),
    ]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def bullet_list(lines: Sequence[str]) -> str:
    """A Markdown list; its lines are escaped."""
    return "\n".join(f"* {escape_markdown(line)}" for line in lines)


def _section(title: str, content: str) -> list[str]:
    """A section, or nothing without content."""
    if not content:
        return []
    return [f"## {title}\n\n{content}"]


def _dimensions_table(metrics: Mapping[str, Any]) -> str:
    rows = dimension_rows(metrics)
    if not rows:
        return ""
    return markdown_table(DIMENSIONS_HEADER, rows)
