"""A row alone against the same row in a padded batch, for each kind of audio backbone, in full width.

    python benchmarks/batching.py

With the mask all kinds are exact to float precision. Upstream, the first convolution of group-norm backbones
(wav2vec2-base, HuBERT-base, WavLM-base) normalises over padding too; here over the real frames of a row alone.
"""

import argparse

import torch
from common import command, hardware, publish
from transformers import Wav2Vec2Config

from configuration_merhan import MerhanAudioConfig, MerhanConfig
from merhan.reporting.markdown_tables import markdown_table
from modeling_merhan import MerhanForSequenceClassification


SECONDS = (2.0, 4.0, 8.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    kinds = {
        "light": MerhanAudioConfig(),
        "wav2vec2, layer norm": Wav2Vec2Config(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
        "wav2vec2-base, group norm": Wav2Vec2Config(),
    }
    rows = [[name, *(f"{value:.1e}" for value in residuals(config))] for name, config in kinds.items()]
    text = f"""`{command()}`

Random weights, noise of {", ".join(f"{s:g}" for s in SECONDS)} s padded to {max(SECONDS):g} s; seed 0, {hardware()}.
Largest difference of a pooled utterance from the same one alone, over the standard deviation of the pooled values.

{markdown_table(["audio backbone", "with the mask", "without a mask"], rows)}
"""
    publish("batching", text, arguments.write)


@torch.no_grad()
def residuals(config) -> tuple[float, float]:
    """Largest relative difference with the mask, and without one."""
    torch.manual_seed(0)
    model = MerhanForSequenceClassification(MerhanConfig(audio_config=config, num_labels=4)).eval()
    waves = [torch.randn(round(seconds * 16_000)) for seconds in SECONDS]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(wave) for wave in waves], batch_first=True).long()
    alone = torch.cat([model(wave[None]).pooler_output for wave in waves])
    masked = model(batch, mask).pooler_output
    unmasked = model(batch).pooler_output
    return tuple(((pooled - alone).abs().max() / alone.std()).item() for pooled in (masked, unmasked))


if __name__ == "__main__":
    main()
