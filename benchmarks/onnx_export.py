"""`merhan export` against PyTorch: size on disk, speed, and how far the logits are apart.

python benchmarks/onnx_export.py

Models with random weights: the light speech backbone, and the shapes of wav2vec2-base; the words by those of
roberta-base with a small vocabulary. Batches of one utterance, and of 8 of 2 to 4 s, with words. Both run on one
thread, in turn, and the fastest run of each counts.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from common import command, hardware, publish
from full_width import word_tokenizer
from transformers import RobertaConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from configuration_merhan import MerhanAudioConfig, MerhanConfig
from merhan.models.export import PRECISIONS, export
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


WORDS = "I cannot believe it and the dinner was lovely"
AUDIO = {"light": MerhanAudioConfig(), "wav2vec2-base": Wav2Vec2Config(feat_extract_norm="layer")}
BATCHES = {"one utterance": [3.0], "eight": [2.0, 2.3, 2.6, 2.9, 3.1, 3.4, 3.7, 4.0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line for name in AUDIO for line in table_rows(name, arguments.repeats)]
    text = f"""`{command()}`

{hardware()}, one thread; random weights, the text backbone in the shapes of roberta-base with a vocabulary of 1,000.
Speed relative to PyTorch in float32 (2 = twice as fast), the fastest of {arguments.repeats} runs of each, in turn.

| speech backbone | precision | size, relative | speed, one utterance | speed, eight | logits differ by |
| --- | --- | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
"""
    publish("onnx", text, arguments.write)


def table_rows(name: str, repeats: int) -> list[str]:
    """A row for each precision."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS.split(), 510)
    config = MerhanConfig(
        audio_config=AUDIO[name],
        text_config=RobertaConfig(vocab_size=1000, max_position_embeddings=514),
    )
    model = MerhanForSequenceClassification(config).eval()
    processor = MerhanProcessor(Wav2Vec2FeatureExtractor(), tokenizer)
    lines = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        weights = (folder / "model.safetensors").stat().st_size
        for precision in PRECISIONS:
            graph = export(folder, Path(temporary, precision), precision)
            size = sum(path.stat().st_size for path in graph.glob("model.onnx*")) / weights
            ratios, differences = zip(
                *(compare(model, processor, graph, lengths, repeats) for lengths in BATCHES.values()), strict=True
            )
            speeds = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            lines.append(f"| {name} | {precision} | {size:.2f} | {speeds} | {max(differences):.0e} |")
    return lines


def compare(
    model: MerhanForSequenceClassification, processor: MerhanProcessor, graph: Path, lengths: list[float], repeats: int
) -> tuple[float, float]:
    """How much faster the graph is than PyTorch, and the largest difference of their logits."""
    rng = np.random.default_rng(0)
    sounds = [rng.standard_normal(round(seconds * SAMPLING_RATE)).astype(np.float32) for seconds in lengths]
    batch = processor.pad(sounds, [processor.encode_text(WORDS)] * len(sounds))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph / "model.onnx", options, providers=["CPUExecutionProvider"])
    feeds = {name: tensor.numpy() for name, tensor in batch.items()}

    def by_torch() -> np.ndarray:
        with torch.inference_mode():
            return model(**batch).logits.numpy()

    def by_graph() -> np.ndarray:
        return session.run(["logits"], feeds)[0]

    difference = float(np.abs(by_torch() - by_graph()).max())
    torch_seconds, graph_seconds = zip(*[(seconds(by_torch), seconds(by_graph)) for _ in range(repeats)], strict=True)
    return min(torch_seconds) / min(graph_seconds), difference


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
