"""The leak auditor: each planted leak is found, a clean split passes, and published facts come out again."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from merhan.corpora import read_corpus
from merhan.errors import InputError
from merhan.inspection import measure
from merhan.leaks import PAIRS, audit, require_accepted, unaccepted
from merhan.protocols import named_protocol, split
from merhan.recipe import load_recipe
from merhan.unification import unified_split
from processing_merhan import load_audio


BOTH = ["audio", "text"]
CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture
def clean(tmp_path) -> pd.DataFrame:
    """Thirty utterances of six speakers in three sessions, each with its own sound and words, and no leak."""
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
    rows, facts = measure(rows, "rows")
    return {(leak.kind, leak.sides[1]) for leak in audit(rows, modalities, facts, histories)}


def test_a_clean_split_passes(clean):
    assert kinds(clean) == set()
    require_accepted([], [])


# --- ten planted leaks ---


@pytest.mark.parametrize("column", ["speaker", "session", "dialogue"])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_shared_speaker_session_or_dialogue(column, one, other, clean):
    """A session that stands on both sides also means that the test speaker's dialogue partner was trained on."""
    source = clean.index[clean["split"] == one][0]
    target = clean.index[clean["split"] == other][3]
    clean.loc[target, column] = clean.loc[source, column]
    rows, facts = measure(clean, "rows")
    (leak,) = audit(rows, BOTH, facts)
    assert (leak.kind, leak.sides, leak.rows, leak.share) == (column, (one, other), 1, 0.1)
    assert clean.loc[source, column] in leak.example


def test_dialogue_partners_that_speaker_ids_alone_would_miss(clean):
    """Leave-one-speaker-out on two-party sessions: the partner, in the same room and script, is in training."""
    by_speaker, _, _ = split(clean.drop(columns="split"), "loso:speaker", 0)
    assert {leak.kind for leak in audit(by_speaker, [])} == {"session", "dialogue"}


def test_the_same_recording_twice(clean):
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


def test_another_take_is_no_copy(corpora):
    """The nearest takes that RAVDESS has, by one actor in one emotion; and the pair of equal files, which is a copy."""
    rows = read_corpus("ravdess", corpora / "ravdess").rows
    names = ["03-01-03-02-01-01-23", "03-01-03-02-01-02-23", "03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    rows = rows[rows["utterance_id"].isin(f"ravdess-{name}" for name in names)].reset_index(drop=True)
    rows["split"] = ["train", "test"] * 2
    rows, facts = measure(rows, "rows")
    (leak,) = [leak for leak in audit(rows, [], facts) if leak.kind == "audio"]
    assert leak.rows == 1 and "03-01-03-01-02" in leak.example


def test_the_same_words(clean):
    clean.loc[25, "text"] = "Sentence   number 3!"
    assert kinds(clean) == {("text", "test")}
    assert kinds(clean, ["audio"]) == set(), "a model that reads no words cannot have read these"


def test_words_that_give_the_label_away(clean):
    clean["sentence"] = [f"mead-{label}-014" for label in clean["label"]]
    assert kinds(clean) == {("label-in-text", "test")}
    clean["sentence"] = [f"mead-common-{number // 2 % 2}" for number in range(30)]
    assert kinds(clean) == set(), "sentences that are said in every emotion tell nothing"


def test_ravdess_takes_under_two_modality_codes(clean, tmp_path):
    for row, code in ((2, "01"), (25, "03")):
        path = tmp_path / f"{code}-01-05-01-02-01-18.wav"
        wave, rate = soundfile.read(clean.loc[row, "audio"])  # different sound: the names alone must tell
        soundfile.write(path, wave, rate)
        clean.loc[row, "audio"] = str(path)
    assert kinds(clean) == {("take", "test")}


def test_validation_that_is_test(clean):
    test = clean[clean["split"] == "test"]
    twins = test.assign(
        split="validation", utterance_id="v" + test["utterance_id"], speaker="", session="", dialogue=""
    )
    rows = pd.concat([clean[clean["split"] != "validation"], twins], ignore_index=True)
    assert ("validation", "validation") in kinds(rows)


def history(corpora=("own",), speakers=(), nested=None) -> dict:
    data = {"corpora": list(corpora), "speakers": {"train": list(speakers)} if speakers else {}}
    return {"data": data, "initial_weights": {"audio": nested}}


def test_initial_weights_that_saw_the_test_speakers(clean):
    assert kinds(clean, histories={"model": history(speakers=["s20"])}) == {("weights", "test")}
    assert kinds(clean, histories={"model": history(speakers=["s00"])}) == set(), "training speakers are no leak"


def test_initial_weights_that_saw_the_held_out_corpus(clean):
    assert kinds(clean, histories={"model": history()}) == {("weights", "test")}
    assert kinds(clean, histories={"model": history(["other"])}) == set()
    nested = history(["other"], nested=history())
    assert kinds(clean, histories={"model": nested}) == {("weights", "test")}, "also at second hand"


# --- what happens then ---


def test_a_leak_stops_unless_it_is_named(clean):
    clean.loc[25, "speaker"] = clean.loc[3, "speaker"]
    clean.loc[15, "session"] = clean.loc[3, "session"]
    leaks = audit(clean, [])
    with pytest.raises(InputError, match=r"speaker: 10.0% of test \(1 rows\), speaker 's0.' is also") as caught:
        require_accepted(leaks, [])
    assert "data.accept_leaks: [speaker, session]" in str(caught.value)
    with pytest.raises(InputError, match="session"):
        require_accepted(leaks, ["speaker"])
    require_accepted(leaks, ["speaker", "session:validation"])
    with pytest.raises(InputError, match="speaker"):
        require_accepted(leaks, ["speaker:validation", "session"])
    with pytest.raises(InputError, match="did you mean 'speaker'"):
        require_accepted(leaks, ["speakers"])


# --- published facts, from the real releases ---


def test_meld_shares_texts_and_speakers_by_design(corpora):
    rows = read_corpus("meld", corpora / "meld").rows
    found = {(leak.kind, leak.sides): leak for leak in audit(rows, ["text"])}
    assert abs(found["speaker", ("train", "test")].share - 0.958) < 0.0005
    test = rows[rows["split"] == "test"]
    raw = {name: pd.read_csv(corpora / "meld" / f"{name}_sent_emo.csv")["Utterance"] for name in ("train", "test")}
    assert raw["test"].isin(raw["train"]).sum() == 331, "verbatim, as the release has them"
    assert found["text", ("train", "test")].rows > 331, "and more once case and punctuation are aside"
    assert found["text", ("train", "test")].share == found["text", ("train", "test")].rows / len(test)
    assert not any(kind in ("dialogue", "label-in-text") for kind, _ in found)


def test_emobox_folds_of_cremad_share_every_speaker_and_those_of_ravdess_none(corpora):
    """EmoBox's folds name test speakers. CREMA-D's one fold names all 91: whatever it trains on, it tests on too."""
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


def test_our_folds_of_emodb_and_ravdess_are_clean(corpora):
    for name, protocol in (("emodb", "emodb7-speaker5"), ("ravdess", "ravdess8-emobox6")):
        rows, facts = measure(read_corpus(name, corpora / name).rows, name)
        for fold in range(5):
            parts, _, _ = split(rows, protocol, fold)
            assert audit(parts, ["audio"], facts) == []


def test_the_demo_corpus_shares_words_and_nothing_else(demo):
    rows, facts = measure(demo, "demo")
    assert {leak.kind for leak in audit(rows, BOTH, facts)} <= {"text"}
    assert load_audio(rows["audio"].iloc[0]).any()


# --- what the recipes accept is what their protocols bring ---


def uttered(corpus: str, speaker: str, number: int, **columns) -> dict:
    """A row of a corpus that has everybody say the same, in two moods."""
    name = f"{corpus}-{hashlib.sha256(f'{speaker} {number} {columns}'.encode()).hexdigest()[:12]}"
    said = {"audio": f"{name}.wav", "text": "kids are talking by the door", "label": ("joy", "anger")[number % 2]}
    empty = {"split": "", "session": "", "dialogue": ""}
    return {"utterance_id": name, "corpus": corpus, "speaker": speaker, **said, **empty, **columns}


def iemocap_for_erc() -> pd.DataFrame:
    """As many rows of each session and label as the protocol counts."""
    spec = named_protocol("iemocap6-erc")
    rows = []
    for session, counts in spec["group_counts"].items():
        chosen = [name for name in spec["split"]["validation"]["dialogue"] if name.startswith(session)]
        dialogues = [*chosen, f"{session}F_impro01", f"{session}M_impro01"]
        labels = [label for label, count in counts.items() for _ in range(count)]
        for number, label in enumerate(labels):
            dialogue = dialogues[number % len(dialogues)]
            row = {"session": session, "dialogue": dialogue, "label": label}
            rows.append(uttered("iemocap", f"{session}{'FM'[number // len(dialogues) % 2]}", number, **row))
    return pd.DataFrame(rows)


def several_corpora() -> list[pd.DataFrame]:
    """Sessions of two, series with recurring characters and a split of its own, and actors who speak alone."""
    two = [
        uttered("iemocap", f"iemocap-Ses{session:02d}{who}", number, session=f"s{session}", dialogue=f"s{session}")
        for session in range(10)
        for who in "FM"
        for number in range(2)
    ]
    series = [
        uttered("meld", speaker, number, split=part, dialogue=f"meld-{part}-{guest // 5}")
        for part in ("train", "validation", "test")
        for guest in range(20)
        for number in range(2)
        for speaker in (f"meld-{part}-{guest}", "meld-Ross")
    ]
    alone = [uttered("ravdess", f"ravdess-{actor}", number) for actor in range(24) for number in range(2)]
    return [pd.DataFrame(rows) for rows in (two, series, alone)]


def joined() -> list[pd.DataFrame]:
    return [pd.concat([part.assign(split=unified_split(part)) for part in several_corpora()], ignore_index=True)]


def each_left_out() -> list[pd.DataFrame]:
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
def test_a_recipe_accepts_what_its_protocol_brings_and_nothing_else(recipe, manifests):
    recipe = load_recipe(CONFIGS / f"{recipe}.yaml", ["data.source=null"])
    leaks = []
    for rows in manifests():
        trained = history(rows["corpus"].unique(), rows.loc[rows["split"] == "train", "speaker"].unique())
        leaks += audit(rows, BOTH, histories={"model": trained} if recipe.model.checkpoint else None)
    accepted = recipe.data.accept_leaks
    assert unaccepted(leaks, accepted) == []
    for name in accepted:
        assert unaccepted(leaks, [one for one in accepted if one != name]), f"{name} occurs nowhere"
