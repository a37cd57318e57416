"""`merhan init`: a commented recipe for data that nobody has described yet, with every guess marked."""

from pathlib import Path

from merhan.data.first_look import FirstLook, look
from merhan.data.labels import yaml_key
from merhan.data.manifest import NULL_WORDS, SPLITS, usual_split_names
from merhan.errors import InputError
from merhan.files import write_text
from merhan.names import VOCABULARY


_MODELS = {
    "audio": """\
model:
  audio_backbone: light # small, trained from scratch; with a GPU and the Hub: facebook/wav2vec2-base
{text}stages: # for a pretrained backbone: docs/tutorial-own-data.md
  - {{name: scratch, epochs: 50, learning_rate: {{head: 5.0e-4, audio: 5.0e-4}}}}
""",
    "text": """\
model:
  text_backbone: FacebookAI/roberta-base # from the Hub
stages:
  - {{name: warmup, epochs: 5, learning_rate: {{head: 1.0e-3}}}}
  - {{name: finetune, epochs: 8, learning_rate: {{head: 1.0e-4, text: 2.0e-5}}}}
""",
}
_TEXT_LINE = "  # text_backbone: FacebookAI/roberta-base # from the Hub: reads the column `text` as well\n"


def draft(source: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Look at a folder or table, and write a recipe for it; for a folder also the table of its recordings.

    Args:
        source: a folder of recordings, or a table.
        out: the recipe to write. The table of a folder gets the same name with `.csv`.

    Returns:
        the files that were written, and sentences on what was seen.

    Raises:
        InputError: see [`look`]; or a file exists already.
    """
    first_look = look(source)
    path = first_look.path or out.with_suffix(".csv")
    new_files = [out] if first_look.path else [out, path]
    for file in new_files:
        if file.exists():
            raise InputError(f"{file}: exists already; choose another recipe with --out.")
    if first_look.path is None:
        write_text(path, first_look.table.to_csv(index=False))
    write_text(out, recipe_text(first_look, path, out.stem, f"merhan init {source.as_posix()}"))
    return new_files, [_seen(first_look), *first_look.notes]


def recipe_text(first_look: FirstLook, source: Path, name: str, command: str) -> str:
    """The recipe as YAML with comments."""
    modality = "audio" if "audio" in first_look.columns else "text"
    text = _TEXT_LINE if "text" in first_look.columns else ""
    lines = [
        f"# Written by `{command}`. Check the lines that are marked as a guess.",
        f"run_name: {yaml_key(name)}",
        "data:",
        "  corpus: table",
        f"  source: {_yaml(source)} # relative to the folder in which you run merhan",
        *_options(first_look, source),
        *_labels(first_look),
        *_protocol(first_look),
    ]
    return "\n".join(lines) + "\n" + _MODELS[modality].format(text=text)


def _options(first_look: FirstLook, source: Path) -> list[str]:
    lines = ["  options:"]
    if first_look.root is not None and first_look.root != source.parent:
        lines.append(f"    root: {_yaml(first_look.root)} # the folder that the paths in the table are relative to")
    if first_look.encoding:
        header = " ".join(" ".join(map(str, first_look.table.columns)).split())
        lines.append(
            f"    encoding: {first_look.encoding} # guess: the table is not Unicode; so its header is: {header}"
        )
    lines.append("    columns: # guess: what is what, as ours: yours")
    lines += [f"      {field}: {yaml_key(str(column))}" for field, column in first_look.columns.items()]
    return lines


def _labels(first_look: FirstLook) -> list[str]:
    """The label map, without the labels that need none, and the labels that nothing is near to."""
    labels = first_look.labels
    same = [word for word in labels if word.lower() in VOCABULARY]
    mapped = {word: label for word, label in labels.items() if label and word not in same}
    empty = [word for word in labels if word in NULL_WORDS]
    own = [word for word, label in labels.items() if label is None and word not in empty]
    lines = [f"  # labels that are ours already: {', '.join(same)}"] if same else []
    mapped |= dict.fromkeys(empty, "null")
    if mapped:
        lines.append("  label_map: # null in place of a label drops its rows")
        lines += [f"    {yaml_key(word)}: {label} # guess" for word, label in mapped.items()]
    if own:
        words = ", ".join(map(yaml_key, own))
        lines.append(f"  own_labels: [{words}] # guess: none of ours is near, so they stay; map them with label_map")
    return lines


def _has_all_splits(first_look: FirstLook) -> bool:
    return set(usual_split_names(first_look.words("split"))) == set(SPLITS)


def _protocol(first_look: FirstLook) -> list[str]:
    """How the rows are split: by their own column, by speaker, or at random."""
    if _has_all_splits(first_look):
        return ["  # the splits are those of the table"]
    names = first_look.words("speaker")[first_look.words("label") != ""]
    speakers = names.nunique()
    if (names == "").any():
        speakers = 0  # a row without a speaker could be of any of them
    if speakers >= 3:
        return ['  protocol: "grouped:speaker" # test speakers are not trained on']
    if speakers == 2:
        return [
            '  protocol: "grouped:speaker" # one speaker is tested',
            '  accept_leaks: ["speaker:validation"] # two speakers do not suffice for three splits',
        ]
    return [
        "  protocol: random # no speakers are known, so the result is for voices that may have been trained on",
        "  accept_leaks: [speaker]",
    ]


def _seen(first_look: FirstLook) -> str:
    counts = [f"{len(first_look.table)} rows"]
    if "speaker" in first_look.columns:
        counts.append(f"{len(set(first_look.words('speaker')) - {''})} speakers")
    labels = ", ".join(f"{word} -> {label or 'own label'}" for word, label in first_look.labels.items())
    return f"{', '.join(counts)}; labels: {labels}"


def _yaml(path: Path) -> str:
    """A path as a YAML string."""
    return '"' + path.as_posix().replace('"', '\\"') + '"'
