"""Emotions by onnxruntime, tokenizers and numpy alone:  python run_onnx.py a.wav I cannot believe it"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers


class Recogniser:
    def __init__(self, folder=Path(__file__).parent):
        self.settings = json.loads(Path(folder, "settings.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(Path(folder, "model.onnx"), providers=["CPUExecutionProvider"])
        self.tokenizer = tokenizers.Tokenizer.from_file(str(Path(folder, "tokenizer.json")))

    def __call__(self, utterances):
        """[{"audio": (samples,) floats at 16 kHz, "text": words}, ...], either or both -> [{label: score}, ...]"""
        sounds = [None if row.get("audio") is None else self.sound(row["audio"]) for row in utterances]
        words = [self.tokens(row["text"]) if (row.get("text") or "").strip() else None for row in utterances]
        rows = {"audio": sounds, "text": words}
        names = ["+".join(name for name in rows if rows[name][row] is not None) for row in range(len(utterances))]
        if not set(names) <= set(self.settings["temperature"]):
            raise ValueError(f"An utterance must have one of: {', '.join(self.settings['temperature'])}.")
        padded = (*self.pad("samples", sounds, np.float32(0)), *self.pad("tokens", words, np.int64(0)))
        inputs = ("input_values", "audio_attention_mask", "input_ids", "attention_mask")
        feeds = {name: array for name, array in zip(inputs, padded, strict=True) if name in self.settings["inputs"]}
        logits = self.session.run(["logits"], feeds)[0] / [[self.settings["temperature"][name]] for name in names]
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [dict(zip(self.settings["labels"], (row / row.sum()).tolist(), strict=True)) for row in scores]

    def sound(self, samples):
        samples = np.asarray(samples, np.float32) - np.mean(samples, dtype=np.float32)
        samples = np.pad(samples, (0, max(self.settings["shortest"]["samples"] - len(samples), 0)))
        return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7) if self.settings["normalise"] else samples

    def tokens(self, text):
        return np.array(self.tokenizer.encode(text).ids)

    def pad(self, kind, rows, zero):
        """Rows of different lengths, None where there is nothing, as one array with its mask."""
        lengths = [0 if row is None else len(row) for row in rows]
        shortest, longest = self.settings["shortest"][kind], self.settings["longest"][kind]
        if max(lengths) > longest:
            raise ValueError(f"An utterance has {max(lengths)} {kind}; this model reads up to {longest}: split it.")
        filled = np.full((len(rows), max(*lengths, shortest)), zero + self.settings["padding"][kind])
        for target, row, length in zip(filled, rows, lengths, strict=True):
            target[:length] = row if length else zero
        return filled, (np.arange(filled.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)


if __name__ == "__main__":
    import soundfile

    sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
    assert rate == 16_000, f"{sys.argv[1]} has {rate} Hz; resample it to 16000 Hz"
    (answer,) = Recogniser()([{"audio": sound.mean(axis=1), "text": " ".join(sys.argv[2:])}])
    print(*(f"{score:.3f} {label}" for label, score in sorted(answer.items(), key=lambda x: -x[1])), sep="\n")
