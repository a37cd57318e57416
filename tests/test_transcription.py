"""Words where none are given."""

import json

import numpy as np
import pytest
import soundfile
from tiny_whisper import tiny_whisper

import merhan
from merhan.errors import InputError
from merhan.prediction import timeline as timeline_module
from merhan.prediction import transcription
from merhan.prediction.predict import Predictor
from merhan.prediction.timeline import timeline
from merhan.prediction.transcription import Transcriber, Word


SOUND = np.zeros(32_000, np.float32)


def recogniser(text: str = "oh well", **fields):
    def recognise(sound):
        assert sound["sampling_rate"] == 16_000 and sound["raw"].dtype == np.float32
        return {"text": text, **fields}

    return recognise


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


def test_a_recogniser_of_transformers(whisper):
    sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    transcript = Transcriber(whisper)(sound)
    assert transcript.text and " ".join(word.word for word in transcript.words).split() == transcript.text.split()
    assert all(0 <= word.start <= word.end <= 1.0 for word in transcript.words)
    assert transcript.language in ("english", "german")


def test_a_recogniser_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is no speech recogniser that transformers loads"):
        Transcriber(tmp_path / "none")
    with pytest.raises(InputError, match="give a Hub id, a folder or a function"):
        Transcriber(5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="it must return the text"):
        Transcriber(lambda sound: None)(SOUND)


def test_words_have_times():
    chunks = [{"text": " oh", "timestamp": (0.5, 0.7)}, {"text": "well, yes", "timestamp": (1.0, None)}]
    assert Transcriber(recogniser("oh well, yes", chunks=chunks))(SOUND).words == [
        Word(0.5, 0.7, "oh"),
        Word(1.0, pytest.approx(1.625), "well,"),
        Word(pytest.approx(1.625), 2.0, "yes"),
    ], "where a chunk has several words, its time is shared by their letters"
    assert Transcriber(lambda sound: "a abc")(SOUND).words == [Word(0.0, 0.5, "a"), Word(0.5, 2.0, "abc")]
    assert Transcriber(lambda sound: " ")(SOUND) == (" ".strip(), [], None)


@pytest.mark.parametrize(
    ("recognise", "reason"),
    [
        (recogniser("  "), "empty"),
        (recogniser("ach so", language="de"), "of another language"),
        (
            recogniser("ach so", chunks=[{"text": "ach so", "timestamp": (0, 1), "language": "german"}]),
            "of another language",
        ),
        (recogniser("no " * 5000), "too long for the text backbone"),
        (recogniser("oh well", language="EN"), None),
        (recogniser("oh well"), None),
    ],
)
def test_what_the_model_cannot_use_is_counted(recognise, reason, processor, monkeypatch):
    transcriber = Transcriber(recognise, language="english")
    transcript = transcriber(SOUND)
    assert transcriber.usable_text(transcript, processor) == ("" if reason else "oh well")
    warnings = []
    monkeypatch.setattr(transcription.logger, "warning", warnings.append)
    transcriber.log()
    assert warnings == ([f"1 of 1 transcripts are {reason}, and not used"] if reason else [])


def test_predictions_use_words_and_say_so(trained_like, processor, demo):
    rows = demo.head(4)[["utterance_id", "audio", "text"]].copy()
    rows.loc[[1, 2], "text"] = ""
    rows.loc[3, "audio"] = "none.wav"
    rows.loc[3, "text"] = ""
    answers = iter([{"text": "the dinner was lovely"}, {"text": ""}])
    predictor = Predictor(trained_like.eval(), processor, transcriber=Transcriber(lambda sound: next(answers)))
    table = predictor.table(rows)
    assert table["given"].tolist()[:3] == ["audio+text", "audio+text", "audio"]
    assert table["transcript"].isna().tolist() == [True, False, False, True]
    assert table["transcript"].tolist()[1:3] == ["the dinner was lovely", ""]
    assert "no such file" in table["error"][3]
    expected = Predictor(trained_like, processor).table(rows.iloc[[1]].assign(text="the dinner was lovely"))
    np.testing.assert_allclose(table.filter(like="score_").iloc[[1]], expected.filter(like="score_"), atol=1e-5)


def test_another_recogniser_is_another_result(trained_like, processor, demo, tmp_path):
    digests = [
        Predictor(trained_like, processor, transcriber=transcriber)._digest()
        for transcriber in (None, Transcriber(recogniser()), Transcriber(recogniser(), "en"))
    ]
    assert len(set(digests)) == 3


def test_a_timeline_has_words_with_their_times(trained_like, processor, tone, monkeypatch):
    monkeypatch.setattr(timeline_module, "speech_regions", lambda *_: [(0.5, 1.5), (2.0, 2.5)])
    heard = iter(["oh well", ""])
    result = timeline(
        Predictor(trained_like.eval(), processor), tone(seconds=3.0), transcriber=Transcriber(lambda _: next(heard))
    )
    assert result.utterances["given"].tolist() == ["audio+text", "audio"]
    assert result.utterances["text"].isna().tolist() == [False, True] and result.utterances["text"][0] == "oh well"
    assert result.words["word"].tolist() == ["oh", "well"] and result.words["utterance"].tolist() == [0, 0]
    np.testing.assert_allclose(result.words[["start", "end"]], [[0.5, 0.5 + 1 / 3], [0.5 + 1 / 3, 1.5]])
    assert "lambda" in result.transcribed_by


def test_the_commands_transcribe(trained_like, processor, whisper, demo, tone, tmp_path, monkeypatch):
    trained_like.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(timeline_module, "speech_regions", lambda *_: [(0.5, 1.5)])
    from merhan.cli.main import main

    options = ["--transcribe", str(whisper), "--language", "en"]
    main(["timeline", str(tmp_path / "model"), str(tone(seconds=3.0)), "--out", str(tmp_path / "a.json"), *options])
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert content["transcribed_by"] == str(whisper)
    assert content["utterances"][0]["text"]
    main(["predict", str(tmp_path / "model"), str(tone()), "--out", str(tmp_path / "a.jsonl"), *options])
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["transcript"]


def sphinx():
    """A recogniser over pocketsphinx, as docs/how-to/long-recordings.md shows it."""
    decoder = pytest.importorskip("pocketsphinx").Decoder(loglevel="FATAL")

    def recognise(sound):
        samples = (0.9 * 2**15 * sound["raw"] / np.abs(sound["raw"]).max()).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        words = [part for part in decoder.seg() if part.word[0] not in "<["]
        chunks = [
            {"text": part.word.split("(")[0], "timestamp": (part.start_frame / 100, (part.end_frame + 1) / 100)}
            for part in words
        ]
        return {"text": " ".join(chunk["text"] for chunk in chunks), "chunks": chunks}

    return recognise


def test_real_words_are_largely_right(corpora):
    recognise = Transcriber(sphinx())
    right = total = 0
    for actor in (3, 5):  # speak clearly; the model is small, and was not trained on acted emotions
        for statement, sentence in (("01", "kids are talking by the door"), ("02", "dogs are sitting by the door")):
            path = corpora / "ravdess" / f"Actor_{actor:02d}" / f"03-01-01-01-{statement}-01-{actor:02d}.flac"
            samples, _ = soundfile.read(path, dtype="float32")
            transcript = recognise(samples)
            right += sum(word in transcript.text.split() for word in sentence.split())
            total += len(sentence.split())
            assert all(a.end <= b.start + 1e-6 for a, b in zip(transcript.words, transcript.words[1:], strict=False))
    assert right >= 0.9 * total, f"{right} of {total} words"


def test_a_language_without_a_recogniser_is_refused(tmp_path):
    for call in (merhan.predict, merhan.timeline):
        with pytest.raises(InputError, match="language: is that of the words that a recogniser hears"):
            call("me/model", tmp_path / "call.wav", language="en")
