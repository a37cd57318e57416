"""Protocols: their files, their counts on the releases, and their errors."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from releases import esd, iemocap, msp_podcast, nemo

from merhan.data import protocols
from merhan.data.corpora import CORPORA
from merhan.data.corpora.base import read_corpus
from merhan.data.loading import load_data
from merhan.data.manifest import is_context_only, write_manifest
from merhan.data.protocols import FOLDER, protocol_hash, split
from merhan.errors import InputError
from merhan.names import VOCABULARY
from merhan.recipe.schema import DataRecipe


SPECS = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in sorted(FOLDER.glob("*.yaml"))}
SPLITS = ["train", "validation", "test"]


@pytest.fixture(scope="module")
def rows_of(request, tmp_path_factory):
    """The labelled rows of a corpus, from a synthetic release or a real one; skipped without the real one."""
    read = {}

    def rows(corpus: str) -> pd.DataFrame:
        if corpus not in read:
            if corpus == "iemocap":
                source = iemocap.make(tmp_path_factory.mktemp(corpus))
            else:
                source = request.getfixturevalue("corpora") / corpus
            if corpus == "cremad":
                source = empty_recordings(source, tmp_path_factory.mktemp(corpus))
            all_rows = read_corpus(corpus, source).rows
            read[corpus] = all_rows[~is_context_only(all_rows)]
        return read[corpus]

    return rows


def empty_recordings(release: Path, folder: Path) -> Path:
    """Write empty files with the names in the list of CREMA-D's recordings."""
    for name in pd.read_csv(release / "SentenceFilenames.csv")["Filename"]:
        (folder / f"{name}.wav").touch()
    return folder


def sizes(parts: pd.DataFrame) -> list[int]:
    """Rows of train, validation and test."""
    return [int((parts["split"] == name).sum()) for name in SPLITS]


# --- the files ---


@pytest.mark.parametrize("name", SPECS)
def test_a_protocol_file(name):
    spec = SPECS[name]
    assert spec["name"] == name and spec["version"] >= 1 and spec["corpus"] in CORPORA
    undocumented = [key for key in spec if f" {key} " not in protocols.__doc__.replace(",", " ").replace(":", " ")]
    assert not undocumented, "every key is documented, so that a misspelled one is noticed"
    assert all(isinstance(line, str) for line in spec["published"] + spec["weaker"])
    groups = [group for names in spec.get("folds", []) for group in names]
    assert len(groups) == len(set(groups)), "a group is tested once"
    counted = [*spec.get("group_counts", {}).values(), spec.get("counts", {})]
    labels = {word for counts in counted for word, count in counts.items() if isinstance(count, int)}
    assert labels | set(spec.get("labels", [])) <= set(VOCABULARY)
    assert set(spec.get("group_counts", {})) <= {*groups, *[f"iemocap-Ses0{number}" for number in range(1, 6)]}


def test_every_protocol_is_documented():
    page = (FOLDER.parent.parent / "docs" / "corpora.md").read_text()
    assert [name for name in SPECS if f"| `{name}` |" not in page] == []


def test_the_hash_is_of_what_is_measured():
    spec = SPECS["ravdess8-emobox6"]
    hashed = protocol_hash(spec)
    assert protocol_hash({**spec, "published": ["someone, 99.9"], "weaker": []}) == hashed
    assert protocol_hash(dict(reversed(spec.items()))) == hashed
    assert protocol_hash({**spec, "counts": {**spec["counts"], "neutral": 95}}) != hashed
    assert protocol_hash({**spec, "folds": spec["folds"][1:]}) != hashed
    assert len({protocol_hash(other) for other in SPECS.values()}) == len(SPECS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("emodb7-speaker5", "1856d4d63c1e19e6"),
        ("meld7-official", "0a16957da76150b3"),
        ("ravdess8-emobox6", "732d2de9061f4bea"),
    ],
)
def test_hashes_of_published_results_do_not_change(name, expected):
    """A protocol that measures something else must have another version."""
    assert SPECS[name]["version"] == 1 and protocol_hash(SPECS[name]) == expected


# --- folds ---


@pytest.mark.parametrize(
    ("name", "tested"),
    [
        ("emodb7-speaker5", [107, 81, 90, 130, 127]),
        ("emodb7-loso", [49, 58, 43, 38, 55, 35, 61, 69, 56, 71]),
        ("ravdess8-emobox6", [240] * 6),
        ("cremad6-speaker5", [1463, 1470, 1558, 1476, 1474]),
        ("iemocap4-loso", [1085, 1023, 1151, 1031, 1241]),
        ("iemocap4-impro-loso", [521, 530, 627, 534, 731]),
    ],
)
def test_folds_test_every_row_once_and_share_no_speaker(name, tested, rows_of):
    rows = rows_of(SPECS[name]["corpus"])
    seen = []
    for fold, size in enumerate(tested):
        parts, identity, _ = split(rows, name, fold)
        assert identity == {"name": name, "version": 1, "hash": protocol_hash(SPECS[name])} | {
            "fold": fold,
            "folds": len(tested),
        }
        train, validation, test = (set(parts.loc[parts["split"] == part, "speaker"]) for part in SPLITS)
        assert train and not train & validation and not train & test and not validation & test
        assert sizes(parts)[1:] == [tested[(fold + 1) % len(tested)], size], "the next fold is for validation"
        seen += parts.loc[parts["split"] == "test", "utterance_id"].tolist()
    assert len(seen) == len(set(seen)) == len(parts)
    with pytest.raises(InputError, match=f"has folds 0 to {len(tested) - 1}, not {len(tested)}"):
        split(rows, name, len(tested))


@pytest.mark.parametrize(("name", "release"), [("esd5-emobox5", esd), ("nemo6-loso", nemo)])
def test_folds_have_the_speaker_names_of_the_reader(name, release, tmp_path):
    rows = read_corpus(SPECS[name]["corpus"], release.make(tmp_path / "release")).rows
    assert set(rows["speaker"]) < {speaker for names in SPECS[name]["folds"] for speaker in names}
    with pytest.raises(InputError, match=f"{name} asserts its counts"):
        split(rows, name, 0)


def test_folds_of_esd_have_the_same_size():
    emotions = ["anger", "joy", "neutral", "sadness", "surprise"]
    speakers = [f"esd-{number:04d}" for number in range(1, 21)]
    names = [(speaker, label, number) for speaker in speakers for label in emotions for number in range(350)]
    rows = pd.DataFrame(names, columns=["speaker", "label", "utterance_id"]).assign(corpus="esd")
    for fold in range(5):
        assert sizes(split(rows, "esd5-emobox5", fold).rows) == [21_000, 7000, 7000]
    rows.loc[rows["speaker"].eq("esd-0005").idxmax(), "speaker"] = "esd-0012"
    with pytest.raises(InputError, match="fold 0 differs: rows 6999 instead of 7000"):
        split(rows, "esd5-emobox5", 0)


def test_improvised_turns_are_selected(rows_of):
    parts, _, notes = split(rows_of("iemocap"), "iemocap4-impro-loso", 0)
    assert len(parts) == 2943 and parts["dialogue"].str.contains("_impro").all()
    assert any(note.startswith("2588 left out by iemocap4-impro-loso: dialogue does not match") for note in notes)


# --- explicit and official splits ---


def test_explicit_dialogues_for_validation(rows_of):
    parts, identity, _ = split(rows_of("iemocap"), "iemocap6-erc", 0)
    assert len(parts) == 7380 and "fold" not in identity
    of_split = {name: parts[parts["split"] == name] for name in SPLITS}
    assert set(of_split["test"]["session"]) == {"iemocap-Ses05"} and len(of_split["test"]) == 1622
    assert not set(of_split["train"]["dialogue"]) & set(of_split["validation"]["dialogue"])
    dialogues = sorted(set(of_split["train"]["dialogue"]) | set(of_split["validation"]["dialogue"]))
    assert len(dialogues) == 120 and sorted(set(of_split["validation"]["dialogue"])) == dialogues[9::10]


@pytest.mark.parametrize("name", ["meld7-official", "meld3-sentiment"])
def test_official_splits_of_meld(name, rows_of):
    rows = rows_of("meld")
    parts, identity, notes = split(rows, name, 0)
    assert identity["name"] == name and parts["split"].tolist() == rows["split"].tolist() and not notes
    assert sizes(parts) == [9989, 1109, 2610]
    assert parts["label"].nunique() == len(SPECS[name]["counts"]["test"])


def test_official_splits_of_msp_podcast(tmp_path):
    rows = read_corpus("msp_podcast", msp_podcast.make(tmp_path)).rows
    parts = split(rows[~is_context_only(rows)], "msp-podcast8-official", 0, only="test").rows
    tested = parts.loc[parts["split"] == "test", "utterance_id"]
    assert tested.tolist() == ["msp_podcast-MSP-PODCAST_0001_0008", "msp_podcast-MSP-PODCAST_0001_0019"]


# --- errors ---


@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        ("emodb7-loso", {"label": "boredom"}, "the corpus differs: boredom 80 instead of 81"),
        ("meld7-official", {"split": "test", "label": "fear"}, "test differs: fear 49 instead of 50"),
        ("meld3-sentiment", {"split": "validation", "sentiment": "positive"}, "validation differs: positive 232"),
        ("iemocap4-loso", {"session": "iemocap-Ses03", "label": "anger"}, "iemocap-Ses03 differs: anger 239"),
        ("iemocap6-erc", {"session": "iemocap-Ses05", "label": "joy"}, "iemocap-Ses05 differs: joy 142"),
    ],
)
def test_a_missing_row_is_an_error(name, removed, message, rows_of):
    rows = rows_of(SPECS[name]["corpus"])
    first = rows[(rows[list(removed)] == pd.Series(removed)).all(axis=1)].index[0]
    with pytest.raises(InputError, match=f"{name} asserts its counts, and {message}.*Complete the release"):
        split(rows.drop(first), name, 0)


@pytest.mark.parametrize(
    ("name", "column"), [("meld3-sentiment", "sentiment"), ("iemocap6-erc", "dialogue"), ("iemocap4-loso", "session")]
)
def test_a_missing_column_is_an_error(name, column):
    rows = pd.DataFrame({"corpus": [SPECS[name]["corpus"]], "label": ["joy"], "session": "a", "dialogue": "b"})
    with pytest.raises(InputError, match=f"{name} needs the column '{column}', which the rows lack"):
        split(rows.drop(columns=column, errors="ignore"), name, 0)


def test_another_corpus_or_an_unknown_group_is_an_error(demo, rows_of):
    with pytest.raises(InputError, match="emodb7-loso is for emodb, the rows are of demo"):
        split(demo, "emodb7-loso", 0)
    rows = rows_of("iemocap").replace({"session": {"iemocap-Ses05": "iemocap-Ses06"}})
    with pytest.raises(InputError, match="iemocap4-loso has no session iemocap-Ses06"):
        split(rows, "iemocap4-loso", 0)


# --- for any manifest ---


def test_leave_one_speaker_out(demo):
    speakers = sorted(demo["speaker"].unique())
    tested = []
    for fold, speaker in enumerate(speakers):
        parts, identity, _ = split(demo, "loso:speaker", fold)
        assert set(parts.loc[parts["split"] == "test", "speaker"]) == {speaker}
        assert set(parts.loc[parts["split"] == "validation", "speaker"]) == {speakers[(fold + 1) % len(speakers)]}
        assert identity["folds"] == len(speakers)
        tested += parts.loc[parts["split"] == "test", "utterance_id"].tolist()
    assert sorted(tested) == sorted(demo["utterance_id"])
    with pytest.raises(InputError, match="loso:session needs a session in every row"):
        split(demo, "loso:session", 0)


@pytest.fixture
def two_manifests(demo, tmp_path) -> list[str]:
    """The demo corpus under two names in two folders; only the first has the label `calm`."""
    paths = []
    for name in ("first", "second"):
        rows = demo.assign(corpus=name, **{key: name + "-" + demo[key] for key in ("utterance_id", "speaker")})
        rows = rows if name == "first" else rows[rows["label"] != "calm"]
        paths.append(str(tmp_path / name / "manifest.parquet"))
        write_manifest(rows, paths[-1])
    return paths


def test_leave_one_corpus_out(two_manifests, demo):
    for fold, tested in enumerate(("first", "second")):
        recipe = DataRecipe("manifest", two_manifests, protocol="loco", fold=fold)
        data = load_data(recipe, ["audio", "text"], raw=["audio", "text"])
        assert (data.rows["duration"] > 0).all(), "paths are relative to each manifest"
        assert {leak.kind for leak in data.leaks} == {"audio", "text"}, (
            "they have the same utterances, but other speakers"
        )
        corpora = data.rows.groupby("split")["corpus"].unique()
        assert corpora["test"].tolist() == [tested] and tested not in {*corpora["train"], *corpora["validation"]}
        train, validation = (set(data.rows.loc[data.rows["split"] == part, "speaker"]) for part in SPLITS[:2])
        assert train and validation and not train & validation
        assert set(data.rows["label"]) == {"joy", "anger", "sadness"}, "the labels of both"
        assert any("left out by loco: label is none of anger, joy, sadness" in note for note in data.notes)
        assert data.protocol["name"] == "loco" and data.protocol["folds"] == 2


def test_several_manifests_are_joined(two_manifests, demo):
    rows = read_corpus("manifest", two_manifests).rows
    assert len(rows) == len(demo) + (demo["label"] != "calm").sum()
    both = f"{two_manifests[0]}, {two_manifests[0]}"
    with pytest.raises(InputError, match=f"{both}, row {len(demo) + 1} .*utterance_id is not unique"):
        read_corpus("manifest", [two_manifests[0]] * 2)
    with pytest.raises(InputError, match="the demo reader takes one source, not .*data.corpus=manifest"):
        read_corpus("demo", two_manifests)
    with pytest.raises(InputError, match="loco needs rows of several corpora, there is only demo"):
        split(demo, "loco", 0)
