"""Emotions along a long recording."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import LABELS
from transformers import pipeline

import merhan
from merhan.cli.main import main
from merhan.errors import InputError
from merhan.prediction import recordings
from merhan.prediction import timeline as module
from merhan.prediction.curve import smoothed_curve
from merhan.prediction.predict import Predictor
from merhan.prediction.recordings import Resampler, open_tracks, sound_blocks
from merhan.prediction.speakers import Turn, by_speaker, read_turns
from merhan.prediction.speech import speech_regions
from merhan.prediction.timeline import timeline
from processing_merhan import resample


SCORES = [f"score_{label}" for label in LABELS]


@pytest.fixture
def predictor(trained_like, processor) -> Predictor:
    return Predictor(trained_like.eval(), processor, batch_size=2)


@pytest.fixture
def recording(demo, tmp_path):
    """Three utterances of the demo with silence between, and their borders in seconds."""
    pieces, borders, position = [np.zeros(8000)], [], 8000
    for path in demo["audio"].head(3):
        samples, _ = soundfile.read(path)
        borders.append((position / 16_000, (position + len(samples)) / 16_000))
        pieces += [samples, np.zeros(12_000)]
        position += len(samples) + 12_000
    soundfile.write(tmp_path / "call.wav", np.concatenate(pieces), 16_000)
    return tmp_path / "call.wav", borders


def write_by_ffmpeg(path, samples: np.ndarray, codec: str):
    """Write `(channels, samples)` at 16 kHz in a format that soundfile does not read."""
    av = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    sound, kind = np.ascontiguousarray(samples, np.float32), "fltp"
    if codec == "pcm_s16le":
        sound, kind = (2**15 * samples).astype(np.int16).T.reshape(1, -1), "s16"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(sound, format=kind, layout=layout)
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode(None)])


def test_each_utterance_has_the_scores_of_its_clip(predictor, recording, demo, monkeypatch):
    path, borders = recording
    monkeypatch.setattr(module, "speech_regions", lambda *_: borders)
    result = timeline(predictor, path)
    alone = predictor.table(demo[["audio"]].head(3))
    np.testing.assert_allclose(result.utterances[SCORES], alone[SCORES], atol=1e-5)
    np.testing.assert_allclose(result.utterances[["start", "end"]], borders)
    assert result.seconds == soundfile.info(path).duration and len(result.curve) == int(np.ceil(result.seconds))
    assert set(result.utterances["given"]) == {"audio"} and result.utterances["speaker"].isna().all()
    monkeypatch.setattr(module, "speech_regions", lambda *_: [])
    empty = timeline(predictor, path)
    assert len(empty.utterances) == len(empty.curve) == 0


def test_the_pipeline_of_a_model_folder_gives_timelines(predictor, recording, tmp_path, monkeypatch):
    path, borders = recording
    for part in (predictor.model, predictor.processor):
        part.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(module, "speech_regions", lambda *_: borders)
    expected = timeline(predictor, path)
    recogniser = pipeline("emotion-recognition", model=str(tmp_path / "model"), trust_remote_code=True, top_k=None)
    assert type(recogniser).__module__.startswith("transformers_modules")
    for result in (recogniser(path, timeline=True), *recogniser([str(path), path], timeline=True, batch_size=2)):
        pd.testing.assert_frame_equal(result.utterances, expected.utterances, check_exact=False, atol=1e-5)
        pd.testing.assert_frame_equal(result.curve, expected.curve, check_exact=False, atol=1e-5)
    always = pipeline("emotion-recognition", model=str(tmp_path / "model"), trust_remote_code=True, timeline=True)
    assert len(always(path).utterances) == 3 and len(always(path, timeline=False)) == len(LABELS)


def test_what_a_pipeline_cannot_use_for_a_timeline_is_refused(recogniser, recording):
    path, _ = recording
    for options in ({"text": "oh"}, {"top_k": 1}, {"explain": True}, {"sampling_rate": 8000}, {"min_score": 0.5}):
        with pytest.raises(ValueError, match=f"timeline=True: does not use {next(iter(options))}; .*merhan.timeline"):
            recogniser(path, timeline=True, **options)
    for sound in (path.read_bytes(), np.zeros(16_000), {"text": "oh"}, None):
        with pytest.raises(ValueError, match="timeline=True: reads files, not"):
            recogniser(sound, timeline=True)
    with pytest.raises(ValueError, match=r"no such file"):
        recogniser("none.wav", timeline=True)


@pytest.mark.parametrize("missing", ["merhan.prediction.timeline", "silero_vad"])
def test_a_pipeline_without_the_package_names_it(recogniser, recording, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError) as error:
        recogniser(recording[0], timeline=True)
    assert str(error.value) == f"timeline=True: {missing} is not installed; `pip install 'merhan[train,timeline]'`."


def test_channels_are_speakers(predictor, demo, tmp_path, monkeypatch):
    first, second = (soundfile.read(path, dtype="float32")[0] for path in demo["audio"].head(2))
    sound = np.zeros((16_000 + max(len(first), len(second)), 2), np.float32)
    sound[: len(first), 0], sound[16_000 : 16_000 + len(second), 1] = first, second
    soundfile.write(tmp_path / "call.wav", sound, 16_000)
    regions = iter([[(0.0, len(first) / 16_000)], [(1.0, 1.0 + len(second) / 16_000)]])
    monkeypatch.setattr(module, "speech_regions", lambda blocks, _: [np.concatenate(list(blocks)), next(regions)][1])
    result = timeline(predictor, tmp_path / "call.wav", channels=True)
    alone = predictor.table(demo[["audio"]].head(2))
    assert result.utterances["speaker"].tolist() == ["channel 1", "channel 2"]
    np.testing.assert_allclose(result.utterances[SCORES], alone[SCORES], atol=1e-5)
    soundfile.write(tmp_path / "mono.wav", first, 16_000)
    with pytest.raises(InputError, match="has one channel"):
        timeline(predictor, tmp_path / "mono.wav", channels=True)


RTTM = """;; two speakers
SPEAKER call 1 0.0 2.0 <NA> <NA> Ann <NA> <NA>
SPEAKER call 1 1.5 2.5 <NA> <NA> Bob <NA> <NA>
SPEAKER call 1 4.0 1.0 <NA> <NA> Bob <NA> <NA>
SPEAKER other 1 0.0 1.0 <NA> <NA> Eve <NA> <NA>
"""


def test_turns_of_an_rttm_file_split_the_speech(tmp_path):
    (tmp_path / "call.rttm").write_text(RTTM, encoding="utf-8")
    turns = read_turns(tmp_path / "call.rttm", "folder/call.wav")
    assert turns == [Turn(0.0, 2.0, "Ann"), Turn(1.5, 5.0, "Bob")]
    assert by_speaker([(0.5, 1.6), (1.7, 6.0)], turns) == [
        Turn(0.5, 1.6, "Ann"),
        Turn(1.7, 2.0, "Ann"),
        Turn(1.7, 5.0, "Bob"),
        Turn(5.0, 6.0, None),
    ], "what Bob says from 1.5 s to 1.6 s is too short"
    with pytest.raises(InputError, match="is about call, other, not about meeting"):
        read_turns(tmp_path / "call.rttm", "meeting.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no line that begins with SPEAKER"),
        ("SPEAKER call 1 0.0", "line 1: is no line of RTTM"),
        ("\nSPEAKER call 1 0.0 -1 <NA> <NA> Ann <NA> <NA>", "line 2: is no line of RTTM"),
        ("SPEAKER call 1 zero 1 <NA> <NA> Ann <NA> <NA>", "line 1: is no line of RTTM"),
        ("SPEAKER call 1 nan 1 <NA> <NA> Ann <NA> <NA>", "line 1: is no line of RTTM"),
        ("SPEAKER call 1 0 inf <NA> <NA> Ann <NA> <NA>", "line 1: is no line of RTTM"),
        ("SPEAKER call 1 0 1 <NA> <NA>", "line 1: is no line of RTTM"),
        (b"\xff\xfe", "cannot be read as RTTM"),
    ],
)
def test_a_faulty_rttm_file_is_refused(content, message, tmp_path):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "call.rttm").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_turns(tmp_path / "call.rttm", "call.wav")


def test_a_missing_rttm_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as RTTM"):
        read_turns(tmp_path / "none.rttm", "call.wav")


def utterances(*rows) -> pd.DataFrame:
    """Rows of start, end, speaker, score of anger, abstained."""
    table = pd.DataFrame(rows, columns=["start", "end", "speaker", "score_anger", "abstained"])
    table["abstained"] = table["abstained"].astype("boolean")
    return table.assign(score_joy=1 - table["score_anger"])


def test_the_curve_is_smooth_and_leaves_open_what_is_uncertain():
    rows = [(0.0, 4.0, None, 1.0, False), (4.0, 8.0, None, 0.0, False), (20.0, 21.5, None, 0.9, True)]
    rows.append((30.0, 31.0, None, None, None))  # without scores
    curve = smoothed_curve(utterances(*rows), ["anger", "joy"], 40.2, 0.6)
    assert curve["second"].tolist() == list(range(41))
    anger = curve["score_anger"]
    assert anger[:3].is_monotonic_decreasing and anger[0] > 0.9 and anger[7] < 0.1
    np.testing.assert_allclose(anger[:8].dropna() + curve["score_joy"][:8].dropna(), 1)
    # At 3.5 s the window reaches half a standard deviation back from the border: P(-1.75 < x < 0.25) of P(-1.75, 2.25).
    assert curve["prediction"][:8].tolist() == ["anger", "anger", "anger", None, None, "joy", "joy", "joy"]
    assert curve["abstained"][:8].tolist() == [False] * 3 + [True] * 2 + [False] * 3
    exact = smoothed_curve(utterances(*rows), ["anger", "joy"], 40.2, 0.5)["score_anger"]
    weights = [torch.distributions.Normal(0, 1).cdf(torch.tensor(x)) for x in (-1.75, 0.25, 2.25)]
    assert exact[3] == pytest.approx(((weights[1] - weights[0]) / (weights[2] - weights[0])).item(), abs=1e-4)
    assert curve["abstained"][20:22].tolist() == [True, True], "the utterance is uncertain"
    assert curve["abstained"][8:20].isna().all() and anger[8:].isna().all()
    assert curve["abstained"][30] and curve["abstained"][31:].isna().all()


def test_each_speaker_has_a_curve():
    curve = smoothed_curve(utterances((0, 2, "a", 1.0, False), (0, 2, "b", 0.0, False)), ["anger", "joy"], 2, 0.0)
    assert curve["speaker"].tolist() == ["a", "a", "b", "b"]
    assert curve["score_anger"].tolist() == [1, 1, 0, 0] and curve["second"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("seconds", [0.9, 1.0, 2.0, 2.1, 3.35])
@pytest.mark.parametrize(
    ("name", "codec", "channels"), [("call.m4a", "aac", 1), ("call.m4a", "aac", 2), ("call.mka", "pcm_s16le", 2)]
)
def test_what_only_ffmpeg_reads_is_copied_in_pieces(seconds, name, codec, channels, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "_PIECE_SECONDS", 1)
    time = np.arange(round(16_000 * seconds)) / 16_000
    tones = [0.5 * np.sin(2 * np.pi * frequency * time) for frequency in (200, 300)]
    write_by_ffmpeg(tmp_path / name, np.stack(tones[:channels]), codec)
    whole, _ = recordings.decode_audio(tmp_path / name)
    with open_tracks(tmp_path / name, by_channel=False) as (track,):
        np.testing.assert_allclose(soundfile.read(track.path)[0], whole.mean(axis=0), atol=1e-6)
    if channels == 2:
        with open_tracks(tmp_path / name, by_channel=True) as tracks:
            copies = [soundfile.read(track.path)[0] for track in tracks]
        np.testing.assert_allclose(copies, whole, atol=1e-6)


def test_what_cannot_be_read_is_refused(predictor, tmp_path):
    (tmp_path / "call.m4a").write_bytes(b"no sound" * 100)
    for name in ("none.wav", "call.m4a"):
        with pytest.raises(ValueError, match=name):
            timeline(predictor, tmp_path / name)


RATES = [8000, 11_025, 15_999, 16_000, 22_050, 24_414, 44_100, 48_000, 96_000]


@pytest.mark.parametrize("rate", RATES)
def test_sound_is_read_in_blocks(tmp_path, rate):
    samples = 0.5 * np.sin(2 * np.pi * 200 * np.arange(70 * rate) / rate)
    soundfile.write(tmp_path / "long.wav", np.stack([samples, samples], axis=1), rate, subtype="FLOAT")
    blocks = list(sound_blocks(tmp_path / "long.wav"))
    assert [round(len(block) / 16_000, 2) for block in blocks] == [32, 32, 6, 0]
    np.testing.assert_allclose(np.concatenate(blocks), resample(samples.astype(np.float32), rate), atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_sound_is_resampled_as_it_comes(rate):
    """In any pieces, empty ones too: what `resample` makes of the whole, with little in memory."""
    generator = np.random.default_rng(rate)
    sound = generator.standard_normal(rate + 1234).astype(np.float32)
    borders = np.sort(generator.integers(0, len(sound), 30))
    resampler, made, held = Resampler(rate), [], 0
    for piece in np.split(sound, [0, *borders, borders[-1]]):
        made.append(resampler.add(piece))
        held = max(held, len(resampler.sound) - len(piece))
    made.append(resampler.finish())
    np.testing.assert_allclose(np.concatenate(made), resample(sound, rate), atol=2e-6)
    assert held <= resampler.source + 3 * resampler.reach
    assert len(Resampler(rate).finish()) == 0
    if rate != 16_000:
        short = Resampler(rate)
        made = [short.add(sound[:3]), short.finish()]
        np.testing.assert_allclose(np.concatenate(made), resample(sound[:3], rate), atol=2e-6)


def test_the_command_writes_files_that_agree(trained_like, processor, recording, tmp_path, capsys, monkeypatch):
    path, borders = recording
    trained_like.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(module, "speech_regions", lambda *_: borders)
    (tmp_path / "call.rttm").write_text("SPEAKER call 1 0 100 <NA> <NA> Ann <NA> <NA>\n", encoding="utf-8")
    names = [str(tmp_path / name) for name in ("out.csv", "out.json")]
    main(["timeline", str(tmp_path / "model"), str(path), "--out", *names, "--speakers", str(tmp_path / "call.rttm")])
    assert "out.json (3 utterances)" in capsys.readouterr().out
    table = pd.read_csv(names[0])
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["start"] for row in content["utterances"]] == table["start"].tolist()
    assert {row["speaker"] for row in content["utterances"]} == {"Ann"}
    result = merhan.timeline(tmp_path / "model", path)
    np.testing.assert_allclose(result.utterances[SCORES], table[SCORES], atol=1e-6)
    for options, message in ((["--speakers", names[0]], "is the file of the speakers"), ([], "is where the words of")):
        with pytest.raises(SystemExit):
            out = [names[0], str(tmp_path / "call.txt")]
            main(["timeline", str(tmp_path / "model"), str(path), "--out", *out, *options])
        assert message in capsys.readouterr().err


def test_speakers_come_from_one_source(predictor, recording):
    with pytest.raises(InputError, match="choose one of them"):
        timeline(predictor, recording[0], speakers="call.rttm", channels=True)


def test_a_missing_package_is_named(predictor, recording, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    predictor.model.save_pretrained(tmp_path / "model")
    predictor.processor.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit):
        main(["timeline", str(tmp_path / "model"), str(recording[0]), "--out", str(tmp_path / "call.csv")])
    assert "pip install 'merhan[timeline]'" in capsys.readouterr().err


def test_borders_of_real_speech(corpora, tmp_path):
    pytest.importorskip("silero_vad")
    files = sorted((corpora / "emodb").rglob("*.wav"))[:12]
    pieces, borders, position = [np.zeros(16_000)], [], 16_000
    for path in files:
        samples, rate = soundfile.read(path)
        assert rate == 16_000
        borders.append((position / 16_000, (position + len(samples)) / 16_000))
        pieces += [samples, np.zeros(24_000)]
        position += len(samples) + 24_000
    soundfile.write(tmp_path / "call.wav", np.concatenate(pieces), 16_000)
    threads = torch.get_num_threads()
    regions = list(speech_regions(sound_blocks(tmp_path / "call.wav"), 12.0))
    assert torch.get_num_threads() == threads
    near = [any(abs(start - low) < 0.3 and abs(end - high) < 0.3 for start, end in regions) for low, high in borders]
    assert sum(near) >= 0.9 * len(files)
    split = list(speech_regions(sound_blocks(tmp_path / "call.wav"), 1.5))
    assert len(split) > len(regions) and max(end - start for start, end in split) <= 1.5


@pytest.mark.slow
def test_twenty_minutes_of_real_speech(corpora, tmp_path):
    """Trains ten minutes: `benchmarks/timeline.py` on a model that is trained as RESULTS.md says."""
    pytest.importorskip("silero_vad")
    pytest.importorskip("pocketsphinx")
    from timeline import build_call, compare  # of benchmarks/

    recipe = Path(__file__).parent.parent / "configs" / "ravdess.yaml"
    changes = [f"output_dir={tmp_path}", "trainer.use_cpu=true", "trainer.bf16=true"]
    run = merhan.train(recipe, changes)
    call = build_call(corpora / "ravdess", tmp_path / "call.wav")
    agreement = compare(Predictor(*merhan.load_checkpoint(run)), call)
    assert len(call.clips) > 300
    assert agreement["borders"] >= 0.9 and agreement["labels"] >= 0.9
