"""The leak checks: each planted leak is found, a clean split has none, and published leaks are reproduced."""

import hashlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from merhan.data.audio_facts import BANDS, FACTS, SEGMENTS, measure_recordings
from merhan.data.corpora.base import read_corpus
from merhan.data.dataset import dialogue_context
from merhan.data.leaks import (
    COPY_COSINE,
    COPY_DURATION,
    PAIRS,
    _copies,
    audit,
    require_accepted_leaks,
    unaccepted_leaks,
)
from merhan.data.multi_corpus import unified_split
from merhan.data.protocols import named_protocol, split
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from processing_merhan import load_audio


BOTH = ["audio", "text"]
CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture
def clean(tmp_path) -> pd.DataFrame:
    """Thirty utterances of six speakers in three sessions, each with its own audio and text, without a leak."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        session = number // 10
        envelope = np.repeat(rng.uniform(0.01, 0.3, 20), 800)
        tone = np.sin(2 * np.pi * rng.uniform(200, 2000) * np.arange(16_000) / 16_000)
        soundfile.write(tmp_path / f"{number}.wav", envelope * (tone + 0.3 * rng.standard_normal(16_000)), 16_000)
        rows.append({
            "utterance_id": f"u{number}",
            "corpus": "own",
            "audio": str(tmp_path / f"{number}.wav"),
            "text": f"sentence number {number}",
            "label": ("joy", "anger")[number % 2],
            "split": ("train", "validation", "test")[session],
            "speaker": f"s{session}{number // 2 % 2}",
            "session": f"session{session}",
            "dialogue": f"dialogue{number // 5}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def kinds(rows: pd.DataFrame, modalities=BOTH, histories=None) -> set[tuple[str, str]]:
    """The leaks as (kind, affected split)."""
    rows, facts = measure_recordings(rows, "rows")
    return {(leak.kind, leak.sides[1]) for leak in audit(rows, modalities, facts, histories)}


def test_a_clean_split_has_no_leak(clean):
    assert kinds(clean) == set()
    require_accepted_leaks([], [])


# --- planted leaks ---


@pytest.mark.parametrize("column", ["speaker", "session", "dialogue"])
@pytest.mark.parametrize(("reference", "affected"), PAIRS)
def test_shared_speaker_session_or_dialogue(column, reference, affected, clean):
    """A shared session also means that the dialogue partner of a test speaker was trained on."""
    source = clean.index[clean["split"] == reference][0]
    target = clean.index[clean["split"] == affected][3]
    clean.loc[target, column] = clean.loc[source, column]
    rows, facts = measure_recordings(clean, "rows")
    (leak,) = audit(rows, BOTH, facts)
    assert (leak.kind, leak.sides, leak.rows, leak.share) == (column, (reference, affected), 1, 0.1)
    assert clean.loc[source, column] in leak.example


def test_dialogue_partners_share_session_and_dialogue(clean):
    """In leave-one-speaker-out on sessions of two, the partner of the tested speaker is in train."""
    by_speaker, _, _ = split(clean.drop(columns="split"), "loso:speaker", 0)
    assert {leak.kind for leak in audit(by_speaker, [])} == {"session", "dialogue"}


def test_the_same_recording_in_two_splits(clean):
    clean.loc[25, "audio"] = clean.loc[2, "audio"]
    assert kinds(clean) == {("audio", "test")}


@pytest.mark.parametrize("change", ["resampled", "louder", "mp3", "stereo"])
def test_a_copy_of_a_recording(change, clean, tmp_path):
    wave, rate = soundfile.read(clean.loc[2, "audio"])
    path = tmp_path / "copy.wav"
    if change == "resampled":
        soundfile.write(path, np.interp(np.arange(0, 16_000, 16 / 48), np.arange(16_000), wave), 48_000)
    elif change == "louder":
        soundfile.write(path, 2.5 * wave, rate)
    elif change == "mp3":
        path = path.with_suffix(".mp3")
        soundfile.write(path, wave, rate)
    else:
        soundfile.write(path, np.stack([wave, wave], axis=1), rate)
    clean.loc[25, "audio"] = str(path)
    assert kinds(clean) == {("audio", "test")}


def test_another_take_is_not_a_copy(corpora):
    """The most similar takes of RAVDESS, by one actor in one emotion; and its two identical files."""
    rows = read_corpus("ravdess", corpora / "ravdess").rows
    names = ["03-01-03-02-01-01-23", "03-01-03-02-01-02-23", "03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    rows = rows[rows["utterance_id"].isin(f"ravdess-{name}" for name in names)].reset_index(drop=True)
    rows["split"] = ["train", "test"] * 2
    rows, facts = measure_recordings(rows, "rows")
    (leak,) = [leak for leak in audit(rows, [], facts) if leak.kind == "audio"]
    assert leak.rows == 1 and "03-01-03-01-02" in leak.example


def test_the_same_text(clean):
    clean.loc[25, "text"] = "Sentence   number 3!"
    assert kinds(clean) == {("text", "test")}
    assert kinds(clean, ["audio"]) == set(), "an audio model does not read texts"


def test_sentences_with_a_fixed_label(clean):
    clean["sentence"] = [f"mead-{label}-014" for label in clean["label"]]
    assert kinds(clean) == {("label-in-text", "test")}
    clean["sentence"] = [f"mead-common-{number // 2 % 2}" for number in range(30)]
    assert kinds(clean) == set(), "sentences of several emotions have no fixed label"


def test_ravdess_takes_under_two_modality_codes(clean, tmp_path):
    for row, code in ((2, "01"), (25, "03")):
        path = tmp_path / f"{code}-01-05-01-02-01-18.wav"
        wave, rate = soundfile.read(clean.loc[row, "audio"])  # different audio: the takes can only be found by name
        soundfile.write(path, wave, rate)
        clean.loc[row, "audio"] = str(path)
    assert kinds(clean) == {("take", "test")}


def test_validation_rows_that_are_test_rows(clean):
    test = clean[clean["split"] == "test"]
    copies = test.assign(
        split="validation", utterance_id="v" + test["utterance_id"], speaker="", session="", dialogue=""
    )
    rows = pd.concat([clean[clean["split"] != "validation"], copies], ignore_index=True)
    assert ("validation", "validation") in kinds(rows)


def history(corpora=("own",), speakers=(), nested=None) -> dict:
    data = {"corpora": list(corpora), "speakers": {"train": list(speakers)} if speakers else {}}
    return {"data": data, "initial_weights": {"audio": nested}}


def test_initial_weights_trained_on_the_test_speakers(clean):
    assert kinds(clean, histories={"model": history(speakers=["s20"])}) == {("weights", "test")}
    assert kinds(clean, histories={"model": history(speakers=["s00"])}) == set(), "these are in train"


def test_initial_weights_trained_on_the_tested_corpus(clean):
    assert kinds(clean, histories={"model": history()}) == {("weights", "test")}
    assert kinds(clean, histories={"model": history(["other"])}) == set()
    nested = history(["other"], nested=history())
    assert kinds(clean, histories={"model": nested}) == {("weights", "test")}, "nested records count"


# --- accepted leaks ---


def test_a_leak_is_an_error_unless_it_is_accepted(clean):
    clean.loc[25, "speaker"] = clean.loc[3, "speaker"]
    clean.loc[15, "session"] = clean.loc[3, "session"]
    leaks = audit(clean, [])
    with pytest.raises(InputError, match=r"speaker: 10.0% of test \(1 rows\), speaker 's0.' is also") as caught:
        require_accepted_leaks(leaks, [])
    assert "data.accept_leaks: [speaker, session]" in str(caught.value)
    with pytest.raises(InputError, match="session"):
        require_accepted_leaks(leaks, ["speaker"])
    require_accepted_leaks(leaks, ["speaker", "session:validation"])
    with pytest.raises(InputError, match="speaker"):
        require_accepted_leaks(leaks, ["speaker:validation", "session"])
    with pytest.raises(InputError, match="did you mean 'speaker'"):
        require_accepted_leaks(leaks, ["speakers"])


# --- leaks of published splits, on the real releases ---


def test_meld_shares_texts_and_speakers(corpora):
    rows = read_corpus("meld", corpora / "meld").rows
    leaks = {(leak.kind, leak.sides): leak for leak in audit(rows, ["text"])}
    assert abs(leaks["speaker", ("train", "test")].share - 0.958) < 0.0005
    shared_text = leaks["text", ("train", "test")]
    test = rows[rows["split"] == "test"]
    raw = {name: pd.read_csv(corpora / "meld" / f"{name}_sent_emo.csv")["Utterance"] for name in ("train", "test")}
    assert raw["test"].isin(raw["train"]).sum() == 331, "verbatim"
    assert shared_text.rows > 331, "more if case and punctuation are ignored"
    assert shared_text.share == shared_text.rows / len(test)
    assert not any(kind in ("dialogue", "label-in-text") for kind, _ in leaks)


def test_emobox_folds_share_speakers_for_cremad_but_not_for_ravdess(corpora):
    """The folds list test speakers. The single fold of CREMA-D lists all 91, so that train has none of its own."""
    folds = json.loads((corpora / "emobox_folds.json").read_text())
    names = pd.read_csv(corpora / "cremad" / "SentenceFilenames.csv")["Filename"]
    assert set(folds["cremad"]["1"]) == set(names.str[:4]) and len(folds["cremad"]) == 1
    halves = pd.DataFrame({"utterance_id": names, "speaker": names.str[:4], "audio": "", "text": "", "label": "joy"})
    halves["split"] = np.where(np.arange(len(halves)) % 2, "test", "train")
    (leak,) = audit(halves.assign(corpus="cremad"), [])
    assert leak.kind == "speaker" and leak.share == 1.0
    rows = read_corpus("ravdess", corpora / "ravdess").rows
    for speakers in folds["ravdess"].values():
        test = rows["speaker"].isin([f"ravdess-{speaker}" for speaker in speakers])
        assert audit(rows.assign(split=np.where(test, "test", "train")), []) == []


def test_the_folds_of_emodb_and_ravdess_are_clean(corpora):
    for name, protocol in (("emodb", "emodb7-speaker5"), ("ravdess", "ravdess8-emobox6")):
        rows, facts = measure_recordings(read_corpus(name, corpora / name).rows, name)
        for fold in range(5):
            parts, _, _ = split(rows, protocol, fold)
            assert audit(parts, ["audio"], facts) == []


def test_the_demo_corpus_shares_texts_only(demo):
    rows, facts = measure_recordings(demo, "demo")
    assert {leak.kind for leak in audit(rows, BOTH, facts)} <= {"text"}
    assert load_audio(rows["audio"].iloc[0]).any()


# --- the leaks that recipes accept ---


def utterance(corpus: str, speaker: str, number: int, **columns) -> dict:
    """A row of a corpus with one sentence, said with two labels."""
    name = f"{corpus}-{hashlib.sha256(f'{speaker} {number} {columns}'.encode()).hexdigest()[:12]}"
    content = {"audio": f"{name}.wav", "text": "kids are talking by the door", "label": ("joy", "anger")[number % 2]}
    empty = {"split": "", "session": "", "dialogue": ""}
    return {"utterance_id": name, "corpus": corpus, "speaker": speaker, **content, **empty, **columns}


def iemocap_for_erc() -> pd.DataFrame:
    """As many rows of each session and label as the protocol asserts."""
    spec = named_protocol("iemocap6-erc")
    rows = []
    for session, counts in spec["group_counts"].items():
        validated = [name for name in spec["split"]["validation"]["dialogue"] if name.startswith(session)]
        dialogues = [*validated, f"{session}F_impro01", f"{session}M_impro01"]
        labels = [label for label, count in counts.items() for _ in range(count)]
        for number, label in enumerate(labels):
            dialogue = dialogues[number % len(dialogues)]
            row = {"session": session, "dialogue": dialogue, "label": label}
            rows.append(utterance("iemocap", f"{session}{'FM'[number // len(dialogues) % 2]}", number, **row))
    return pd.DataFrame(rows)


def several_corpora() -> list[pd.DataFrame]:
    """A corpus with sessions of two, a series with an official split, and a corpus of single actors."""
    dyadic = [
        utterance("iemocap", f"iemocap-Ses{session:02d}{actor}", number, session=f"s{session}", dialogue=f"s{session}")
        for session in range(10)
        for actor in "FM"
        for number in range(2)
    ]
    series = [
        utterance("meld", speaker, number, split=part, dialogue=f"meld-{part}-{guest // 5}")
        for part in ("train", "validation", "test")
        for guest in range(20)
        for number in range(2)
        for speaker in (f"meld-{part}-{guest}", "meld-Ross")
    ]
    acted = [utterance("ravdess", f"ravdess-{actor}", number) for actor in range(24) for number in range(2)]
    return [pd.DataFrame(rows) for rows in (dyadic, series, acted)]


def joined() -> list[pd.DataFrame]:
    """The joined manifest of `merhan prepare all`."""
    return [pd.concat([part.assign(split=unified_split(part)) for part in several_corpora()], ignore_index=True)]


def each_left_out() -> list[pd.DataFrame]:
    """The folds of leave-one-corpus-out."""
    rows = pd.concat(several_corpora(), ignore_index=True).drop(columns="split")
    return [split(rows, "loco", fold).rows for fold in range(3)]


@pytest.mark.parametrize(
    ("recipe", "manifests"),
    [
        ("iemocap-gated", lambda: [split(iemocap_for_erc(), "iemocap6-erc", 0).rows]),
        ("multi-corpus", joined),
        ("multi-corpus-large", joined),
        ("multi-corpus-stage1", joined),
        ("multi-corpus-stage2", joined),
        ("multi-corpus-tokens", joined),
        ("loco", each_left_out),
    ],
)
def test_a_recipe_accepts_exactly_the_leaks_of_its_protocol(recipe, manifests):
    recipe = load_recipe(CONFIGS / f"{recipe}.yaml", ["data.source=null"])
    leaks = []
    for rows in manifests():
        trained = history(rows["corpus"].unique(), rows.loc[rows["split"] == "train", "speaker"].unique())
        leaks += audit(rows, BOTH, histories={"model": trained} if recipe.model.checkpoint else None)
    accepted = recipe.data.accept_leaks
    assert unaccepted_leaks(leaks, accepted) == []
    for name in accepted:
        assert unaccepted_leaks(leaks, [other for other in accepted if other != name]), f"{name} does not occur"


# --- many rows ---


def facts_of(fingerprints: np.ndarray, durations: np.ndarray) -> np.ndarray:
    facts = np.zeros(len(durations), FACTS)
    facts["fingerprint"], facts["duration"] = fingerprints, durations
    facts["digest"] = [str(row) for row in range(len(facts))]
    return facts


@pytest.mark.parametrize("noise", [1, 9.0, 9.3, 12])
def test_the_search_for_copies_finds_what_a_comparison_of_all_with_all_finds(noise):
    """Copies on both sides of the limits of similarity and of duration."""
    rng = np.random.default_rng(0)
    originals = rng.integers(-80, 80, (300, BANDS * SEGMENTS))
    copies = originals[rng.integers(0, 300, 200)] + rng.normal(0, noise / 2, (200, BANDS * SEGMENTS)).round()
    fingerprints = np.concatenate([originals, copies])
    durations = rng.uniform(2.0, 2.2, 500)
    facts = facts_of(fingerprints, durations)
    rows = pd.DataFrame({"utterance_id": map(str, range(500)), "split": ["train"] * 300 + ["test"] * 200})
    unit = fingerprints / np.linalg.norm(fingerprints, axis=1, keepdims=True)
    alike = unit[300:] @ unit[:300].T > COPY_COSINE
    alike &= np.abs(durations[300:, None] - durations[:300]) < COPY_DURATION * durations[300:, None]
    expected = int(alike.any(axis=1).sum())
    found = sum(leak.rows for leak in _copies(rows, facts))
    assert found == expected and (noise < 10) == (expected > 0)


def test_a_row_of_a_large_table_is_made_no_objects_of(tmp_path):
    """Peak memory, without arrow's own, of reading, splitting and auditing; lists of words took 700 bytes a row."""
    size = 20_000
    words = np.array([f"word{number}" for number in range(500)])
    texts = [" ".join(row) for row in words[np.random.default_rng(0).integers(0, 500, (size, 8))]]
    columns = {"utterance_id": map(str, range(size)), "audio": map(str, range(size)), "text": texts}
    speakers = [f"speaker {number % 50}" for number in range(size)]
    pd.DataFrame(columns).assign(corpus="own", label="joy", speaker=speakers).to_parquet(tmp_path / "m.parquet")
    tracemalloc.start()
    try:
        rows = split(read_corpus("manifest", tmp_path / "m.parquet").rows, "loso:speaker", 0).rows
        assert audit(rows, BOTH) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300 * size


def test_rows_without_times_are_compared():
    """`astype(str)` keeps missing cells in pandas 3, and joining them raised a TypeError."""
    rows = pd.DataFrame({"utterance_id": ["a", "b", "c"], "corpus": "own", "audio": ["", "x.wav", "x.wav"]})
    rows = rows.assign(
        text=["one", "", ""], label="joy", start=np.nan, end=np.nan, split=["train", "test", "validation"]
    )
    assert "validation" in {leak.kind for leak in audit(rows, ["text"])}


def test_dialogue_context_is_that_of_a_walk_over_rows():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"dialogue": rng.choice(["", "a", "b", "c"], 60), "turn": rng.permutation(60).astype(float)})
    rows["text"] = np.where(rng.random(60) < 0.2, "", [f"text {row}" for row in range(60)])
    rows = rows.assign(utterance_id=[f"u{row}" for row in range(60)], speaker=[f"s{row % 3}" for row in range(60)])
    contexts = dialogue_context(rows, 3)
    assert set(contexts) == set(rows.loc[rows["dialogue"] != "", "utterance_id"])
    for name, turns in contexts.items():
        row = rows[rows["utterance_id"] == name].iloc[0]
        earlier = rows[(rows["dialogue"] == row["dialogue"]) & (rows["turn"] < row["turn"])].sort_values("turn").tail(3)
        assert turns == [turn for turn in earlier[["speaker", "text"]].to_dict("records") if turn["text"]]
