"""The whole model as one ONNX graph: with masks, missing modalities, and any batch and lengths."""

import numpy as np
import pytest
import torch
from transformers_harness import PAIRS, pair_config

from modeling_merhan import FUSIONS, MerhanForSequenceClassification


onnxruntime = pytest.importorskip("onnxruntime")

NAMES = ["input_values", "audio_attention_mask", "input_ids", "attention_mask"]
FIRST = next(iter(PAIRS))
FAST = [("light + electra", "hybrid")]
OTHERS = [(pair, "hybrid") for pair in PAIRS] + [(FIRST, fusion) for fusion in FUSIONS]
CASES = FAST + [pytest.param(*case, marks=pytest.mark.slow) for case in dict.fromkeys(OTHERS) if case not in FAST]


class Logits(torch.nn.Module):
    """The logits of a model for its tensors in the order of `NAMES`."""

    def __init__(self, model: MerhanForSequenceClassification):
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(NAMES, tensors, strict=True))).logits


def batch(rows: int, samples: int, tokens: int, missing: str | None = None) -> tuple[torch.Tensor, ...]:
    """Rows of different lengths; the last of several has no sound, and none has the missing modality."""
    generator = torch.Generator().manual_seed(rows)
    audio_mask, text_mask = torch.ones(rows, samples).long(), torch.ones(rows, tokens).long()
    if rows > 1:
        audio_mask[0, samples // 2 :] = 0
        audio_mask[-1] = 0
        text_mask[0, tokens - 2 :] = 0
    if missing == "audio":
        audio_mask[:] = 0
    if missing == "text":
        text_mask[:] = 0
    ids = torch.randint(5, 20, (rows, tokens), generator=generator)
    sound = torch.randn(rows, samples, generator=generator) * audio_mask
    return sound, audio_mask, torch.where(text_mask.bool(), ids, 1), text_mask


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pair", "fusion"), CASES)
def test_onnx_gives_the_logits_of_torch(pair, fusion, cache, tmp_path):
    torch.manual_seed(0)
    model = MerhanForSequenceClassification(pair_config(pair, fusion)).eval()
    with torch.no_grad():
        for parameter in model.merhan.fusion.parameters():
            parameter.mul_(5)  # so that every path matters to the logits
    any_size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Logits(model),
        batch(3, 8000, 9),
        dynamo=True,
        verbose=False,
        input_names=NAMES,
        output_names=["logits"],
        dynamic_shapes=(tuple({0: any_size, 1: any_size} for _ in NAMES),),
    )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    sizes = [(3, 8000, 9), (1, 5000, 5), (4, 12345, 20), (2, 8000, 3, "audio"), (2, 8000, 3, "text")]
    for size in sizes:
        tensors = batch(*size)
        with torch.no_grad():
            expected = Logits(model)(*tensors).numpy()
        feeds = {name: tensor.numpy() for name, tensor in zip(NAMES, tensors, strict=True)}
        (found,) = session.run(["logits"], feeds)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=str(size))
        assert np.ptp(expected, axis=1).min() > 1e-3
