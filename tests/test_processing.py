"""Decoding of audio, the processor and the pipeline."""

import io

import av
import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor, RobertaTokenizer, Wav2Vec2FeatureExtractor

from processing_merhan import AudioError, MerhanProcessor, load_audio, read_audio


RATE = 16_000


def frequency(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform))
    return np.fft.rfftfreq(len(waveform), 1 / RATE)[spectrum.argmax()]


def encode(path, codec: str, rate: int = 48_000, channels: str = "stereo"):
    """A second of 440 Hz in whatever container the suffix says."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=channels)
        time = np.arange(rate) / rate
        count = len(stream.layout.channels)
        planes = np.tile((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), (count, 1))
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=channels)
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


# --- audio ---


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a", "a.mp4", "a.webm"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_every_format_gives_the_same_sound(name, as_bytes, tone, tmp_path):
    if name.endswith((".m4a", ".mp4", ".webm")):
        path = tmp_path / name
        encode(path, "libopus" if name.endswith("webm") else "aac")
    else:
        path = tone(name, rate=44_100, channels=2)
    waveform = load_audio(path.read_bytes() if as_bytes else path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(len(waveform) - RATE) < 0.1 * RATE
    assert abs(frequency(waveform) - 440) < 2
    assert abs(np.abs(waveform).max() - 0.5) < 0.1
    assert abs(waveform.mean()) < 1e-3


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_the_pitch_and_the_length(rate, tone):
    waveform = load_audio(tone(rate=rate))
    assert len(waveform) == RATE
    assert abs(frequency(waveform) - 440) < 2


def test_arrays_of_every_shape(tone):
    expected = load_audio(tone())
    samples, rate = soundfile.read(tone(), dtype="float32")
    stereo = np.stack([samples, samples], axis=1)
    integers = (samples * 32768).astype(np.int16)
    for array in (samples, stereo, stereo.T, integers, torch.from_numpy(samples), samples.tolist()):
        np.testing.assert_allclose(load_audio({"array": array, "sampling_rate": rate}), expected, atol=1e-4)


def test_channels_are_averaged_and_the_offset_is_removed():
    left, right = np.full(RATE, 0.5, np.float32), np.linspace(-1, 1, RATE, dtype=np.float32)
    waveform = load_audio({"array": np.stack([left, right]), "sampling_rate": RATE})
    np.testing.assert_allclose(waveform, right / 2, atol=1e-6)


def test_length_is_bounded_on_both_sides(tone):
    short = load_audio(tone(seconds=0.01), min_seconds=0.5)
    assert len(short) == 8000 and not short[160:].any()
    ramp = np.arange(RATE, dtype=np.float32) / RATE
    middle = load_audio({"array": ramp, "sampling_rate": RATE}, min_seconds=0.1, max_seconds=0.25)
    np.testing.assert_allclose(middle, ramp[6000:10_000] - ramp.mean(), atol=1e-6)


def test_silence_around_the_sound_is_cut_off_and_pauses_stay():
    noise = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    noise[:RATE] *= 0.01  # 40 dB below what follows
    noise[2 * RATE : 2 * RATE + 4000] = 0  # a pause
    noise[3 * RATE :] *= 0.01
    sound = {"array": noise, "sampling_rate": RATE}
    trimmed = load_audio(sound, trim_silence=30)
    margin = 800
    np.testing.assert_allclose(trimmed, load_audio(sound)[RATE - margin : 3 * RATE + margin], atol=1e-6)
    assert len(load_audio(sound, trim_silence=60)) == 4 * RATE
    assert len(load_audio({"array": np.zeros(RATE), "sampling_rate": RATE}, trim_silence=30)) == RATE


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_a_segment_of_a_recording(name, tmp_path):
    step = np.repeat([0.0, 0.5], 24_000).astype(np.float32)
    if name.endswith("m4a"):
        encode(tmp_path / name, "aac")
        waveform, rate = read_audio(tmp_path / name, 0.25, 0.75)
        assert len(waveform) == rate // 2
        return
    soundfile.write(tmp_path / name, step, 48_000)
    waveform, rate = read_audio(tmp_path / name, 0.25, 0.75)
    np.testing.assert_allclose(waveform, step[12_000:36_000], atol=1e-4)
    assert rate == 48_000
    with pytest.raises(AudioError, match="lasts 1.000 s, and has no sound between 2 s and 3 s"):
        read_audio(tmp_path / name, 2, 3)


def test_each_failure_names_the_file_and_the_fault(tmp_path, tone):
    def refuses(name: str, fault: str, content: bytes | None = None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=fault) as caught:
            load_audio(tmp_path / name)
        assert str(caught.value).count(name) == 1 and "Errno" not in str(caught.value)

    refuses("gone.wav", "no such file")
    refuses("empty.wav", "empty file", b"")
    refuses("pointer.wav", "git lfs pull", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refuses("page.wav", "cannot be decoded", b"<html>Not found</html>" * 20)
    refuses("cut.wav", "cannot be decoded", tone().read_bytes()[:30])
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), RATE)
    refuses("silent.wav", "0 samples")
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan, 0.1]), RATE, subtype="FLOAT")
    refuses("nan.wav", "NaN")
    with pytest.raises(AudioError, match="sampling_rate"):
        load_audio({"array": np.zeros(8)})
    for name in ("half.wav", "half.aiff", "half.flac", "half.mp3"):
        whole = tone(name, seconds=2.0).read_bytes()
        refuses(name, "truncated|cannot be decoded", whole[: len(whole) // 2])
    for start, end in ((-0.3, None), (1.0, 0.5)):
        with pytest.raises(AudioError, match="correct `start` and `end`"):
            load_audio(tone(), start, end)
    with pytest.raises(AudioError, match="int64"):
        load_audio({"array": [1, 2, 3], "sampling_rate": RATE})
    with pytest.raises(AudioError, match="sampling_rate of None"):
        load_audio({"array": np.zeros(8), "sampling_rate": None})
    with pytest.raises(AudioError, match="is of type ndarray"):
        load_audio(np.zeros(8))
    with pytest.raises(AudioError, match="3 dimensions"):
        load_audio({"array": np.zeros((2, 2, 8)), "sampling_rate": RATE})


# --- real files ---


def test_real_files_with_odd_headers(corpora):
    """RAVDESS wavs carry a chunk before their data, and five are stereo; each equals its resampled copy."""
    originals = sorted((corpora / "ravdess_original").rglob("*.wav"))
    assert len(originals) == 120
    for path in originals[::10]:
        copy = next((corpora / "ravdess").rglob(f"{path.stem}.flac"))
        one, other = load_audio(path), load_audio(copy)
        assert abs(len(one) - len(other)) <= 1
        length = min(len(one), len(other))
        assert np.corrcoef(one[:length], other[:length])[0, 1] > 0.99


# --- the processor ---


def test_both_masks_have_the_right_shapes(processor):
    batch = processor(
        audio=[{"array": np.random.randn(RATE), "sampling_rate": RATE}, None],
        text=["the dinner was lovely", "awful"],
    )
    assert batch["input_values"].shape == batch["audio_attention_mask"].shape == (2, RATE)
    assert batch["audio_attention_mask"].sum(dim=1).tolist() == [RATE, 0]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    lengths = [len(processor.encode_text(text)) for text in ("the dinner was lovely", "awful")]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths


def test_text_bounds_do_not_cut_the_sound(processor, tiny_recipe):
    short = MerhanProcessor(processor.feature_extractor, processor.tokenizer, max_tokens=8, max_seconds=2.0)
    batch = short(audio={"array": np.random.randn(3 * RATE), "sampling_rate": RATE}, text="lovely")
    assert batch["input_values"].shape[1] == 2 * RATE


def test_sound_is_normalised_on_its_real_part_alone(processor):
    quiet = {"array": 0.01 * np.random.default_rng(0).standard_normal(RATE), "sampling_rate": RATE}
    alone = processor(audio=quiet)["input_values"][0]
    together = processor(audio=[quiet, {"array": np.random.randn(2 * RATE), "sampling_rate": RATE}])
    torch.testing.assert_close(together["input_values"][0, :RATE], alone)
    assert abs(alone.std() - 1) < 0.01, "the extractor's own normalisation is kept"
    assert not together["input_values"][0, RATE:].any()


def turns_of(processor, ids) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=False)


def dialogue_processor(processor, **options) -> MerhanProcessor:
    return MerhanProcessor(processor.feature_extractor, processor.tokenizer, use_speaker=True, **options)


def test_context_stands_behind_the_turn_and_knows_its_speakers(processor):
    ours = dialogue_processor(processor, context_turns=2, max_tokens=100)
    context = [{"speaker": "Joey", "text": "too early"}, {"speaker": "Ross", "text": "the game"}, "his answer"]
    text = turns_of(ours, ours.encode_text("was lovely", "Rachel", context))
    assert text == "<s>Rachel: was lovely</s></s>Ross: the game his answer</s>"
    silent = MerhanProcessor(processor.feature_extractor, processor.tokenizer, context_turns=0)
    assert turns_of(silent, silent.encode_text("was lovely", "Rachel", context)) == "<s>was lovely</s>"


@pytest.mark.parametrize("max_tokens", range(4, 60))
def test_the_current_turn_is_never_truncated(processor, max_tokens):
    ours = dialogue_processor(processor, context_turns=9, max_tokens=max_tokens)
    context = [{"speaker": "Ross", "text": f"the dinner was number {number}"} for number in range(9)]
    ids = ours.encode_text("your letter was wonderful", "Rachel", context)
    turn = ours.encode_text("your letter was wonderful", "Rachel")
    assert ids[: len(turn)] == turn
    assert len(ids) <= max(max_tokens, len(turn))
    if len(ids) > len(turn) + 12:
        assert "number 8" in turns_of(ours, ids), "the newest turn of the context goes last"


def test_a_turn_longer_than_the_backbone_is_an_error(processor):
    with pytest.raises(ValueError, match="never truncated"):
        processor.encode_text("lovely " * 500)


def test_the_processor_travels_with_its_template(processor, tmp_path):
    ours = dialogue_processor(
        processor,
        context_turns=3,
        max_tokens=40,
        max_seconds=1.5,
        trim_silence=20.0,
        turn_template="{speaker} says {text}",
    )
    ours.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    arguments = {"text": "lovely", "speaker": "Ross", "context": ["no", {"speaker": "Joey", "text": "yes"}]}
    assert again.encode_text(**arguments) == ours.encode_text(**arguments)
    assert "Ross says lovely" in turns_of(again, again.encode_text(**arguments))
    quiet_end = np.repeat([1.0, 0.001], [RATE, 2 * RATE])
    sound = {"array": quiet_end * np.random.randn(3 * RATE), "sampling_rate": RATE}
    torch.testing.assert_close(
        again(audio=sound, text="no")["input_values"], ours(audio=sound, text="no")["input_values"]
    )


def test_a_text_model_refuses_audio():
    tokenizer = RobertaTokenizer(vocab={"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}, merges=[])
    words = MerhanProcessor(Wav2Vec2FeatureExtractor(), tokenizer, modalities=["text"])
    with pytest.raises(ValueError, match="reads text only; leave out audio"):
        words(audio={"array": np.zeros(RATE), "sampling_rate": RATE})
    with pytest.raises(ValueError, match=r"Utterances \[1\]"):
        words(text=["a", " "])


# --- the pipeline ---


def test_pipeline_reads_every_form_of_input(recogniser, tone):
    path = tone()
    wave, rate = soundfile.read(path)
    whole = recogniser(str(path), text="the dinner was lovely")
    assert [set(entry) for entry in whole] == [{"label", "score"}] * 4
    assert abs(sum(entry["score"] for entry in whole) - 1) < 1e-5
    assert whole == sorted(whole, key=lambda entry: -entry["score"])
    for audio in (path, path.read_bytes(), {"array": wave, "sampling_rate": rate}):
        for one, other in zip(recogniser(audio, text="the dinner was lovely"), whole, strict=True):
            assert one["label"] == other["label"] and abs(one["score"] - other["score"]) < 1e-3
    assert len(recogniser(text="lovely")) == len(recogniser(path)) == 4
    assert len(recogniser(path, top_k=1)) == 1


def test_scores_are_calibrated_by_the_temperature_of_what_is_given(recogniser, processor, tone):
    said, heard = {"text": "the dinner was lovely"}, {"audio": str(tone("a.wav"))}
    recogniser.model.config.temperature = {"text": 2.5, "audio+text": 0.4}
    found = recogniser([said, heard, said | heard])  # one batch
    for row, scores, temperature in zip((said, heard, said | heard), found, (2.5, 1.0, 0.4), strict=True):
        with torch.no_grad():
            logits = recogniser.model(**processor(**row)).logits[0]
        scores = {one["label"]: one["score"] for one in scores}
        scores = torch.tensor([scores[label] for label in recogniser.model.config.label2id])
        torch.testing.assert_close(scores, (logits / temperature).softmax(-1), atol=1e-4, rtol=1e-3)


def test_pipeline_batches_equal_single_calls(recogniser, tone):
    long, short = tone("long.wav", seconds=2.0), tone("short.wav", seconds=0.7)
    mixed = [
        {"audio": str(long), "text": "the dinner was lovely"},
        str(short),
        {"text": "no"},
        short.read_bytes(),
        {"audio": {"array": np.random.randn(RATE), "sampling_rate": RATE}, "text": "his answer is ghastly"},
    ]
    alone = [recogniser(item) for item in mixed]
    for batch_size in (1, 2, 5):
        for one, other in zip(recogniser(mixed, batch_size=batch_size), alone, strict=True):
            assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
            np.testing.assert_allclose([e["score"] for e in one], [e["score"] for e in other], atol=1e-5)
    columns = recogniser([str(long), None], text=["the dinner was lovely", "no"])
    np.testing.assert_allclose(columns[0][0]["score"], alone[0][0]["score"], atol=1e-5)


def test_words_know_their_tokens(processor):
    ours = dialogue_processor(processor, context_turns=2, max_tokens=100)
    turn = ("his answer was lovely", "Ross", [{"speaker": "Joey", "text": "the dinner was lovely"}])
    ids, words = ours.encode_text(*turn), ours.words(*turn)
    assert "".join(word for word, _ in words) == "Ross:hisanswerwaslovely"
    for word, places in words:
        assert ours.tokenizer.decode([ids[place] for place in places]).strip() == word
    assert ours.words(None) == ours.words(" ") == []


def test_an_explanation_is_what_occlusion_and_the_cross_attention_say(recogniser, processor, tone):
    sound, text = str(tone(seconds=1.2)), "the dinner was lovely"
    plain, alone = recogniser(sound, text=text), {"audio": recogniser(text=text), "text": recogniser(sound)}
    found = recogniser(sound, text=text, explain=True)
    for one, other in zip(found["scores"], plain, strict=True):  # eager attention here, sdpa there
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-6)
    for name, without in alone.items():
        score = next(one["score"] for one in without if one["label"] == plain[0]["label"])
        assert found["contributions"][name] == pytest.approx(plain[0]["score"] - score, abs=1e-6)
    with torch.no_grad():
        maps = recogniser.model(**processor(sound, text), output_attentions=True).attentions["text_to_audio"]
    assert [one["word"] for one in found["words"]] == text.split()
    (places,) = (places for word, places in processor.words(text) if word == "dinner")
    expected = maps[0].mean(dim=0)[places].mean(dim=0)
    np.testing.assert_allclose(found["words"][1]["attention"], expected, atol=1e-6)
    assert len(found["seconds"]) == len(expected) and expected.sum() == pytest.approx(1, abs=1e-5)
    assert found["seconds"] == sorted(found["seconds"])
    assert 0 < found["seconds"][0] < 0.05 and 1.15 < found["seconds"][-1] < 1.2

    voice, several = recogniser(sound, explain=True), recogniser([sound, {"text": text}], explain=True, top_k=1)
    assert voice["contributions"] == {} and voice["words"] == voice["seconds"] == []
    assert [len(one["scores"]) for one in several] == [1, 1]


def test_pipeline_explains_bad_input(recogniser, tone):
    for text in ("no", ["a", "b"]):
        with pytest.raises(ValueError, match="text: is a .* beside a list of 1"):
            recogniser([str(tone())], text=text)
    with pytest.raises(ValueError, match="speaker: is a single value beside a list of 2"):
        recogniser(text=["a", "b"], speaker="Ross")
    with pytest.raises(ValueError, match="list of turns per utterance"):
        recogniser(text=["a", "b"], context=["t1", "t2"])
    with pytest.raises(ValueError, match="is not a string"):
        recogniser(text=3)
    with pytest.raises(ValueError, match="batch_size"):
        recogniser(text=["a"], batch_size=0)
    assert recogniser([]) == []
    with pytest.raises(ValueError, match="unknown: txt"):
        recogniser([{"txt": "a"}])
    with pytest.raises(TypeError, match="tpo_k"):
        recogniser(text="a", tpo_k=1)
    with pytest.raises(ValueError, match="neither|Nothing"):
        recogniser([{"text": ""}])
    with pytest.raises(AudioError, match="no such file"):
        recogniser("nowhere.wav")


def test_pipeline_reads_a_stream_of_bytes_without_a_name(recogniser):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE, format="FLAC")
    assert recogniser(file.getvalue())[0]["score"] > 0
