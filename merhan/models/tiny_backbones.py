"""Tiny backbones with random weights, for trials without a download."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaTokenizer,
    Wav2Vec2FeatureExtractor,
)

from merhan.files import atomic_path, cache_folder


def tiny_audio(family: str = "wav2vec2") -> Path:
    """A folder with a random speech backbone of the wav2vec2 family, in the format of a pretrained one."""
    config = AutoConfig.for_model(
        family,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32, 64, 64, 64),
        conv_kernel=(10, 8, 4, 4, 4),
        conv_stride=(5, 4, 2, 4, 2),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        mask_time_length=4,
        layerdrop=0.0,
    )

    def save(folder: Path):
        _seeded(config).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)

    return _made(cache_folder() / "tiny" / f"{family}-{_digest(config.to_json_string())}", save)


def tiny_text(texts: Sequence[str], family: str = "roberta") -> Path:
    """A folder with a random text backbone, and a tokenizer that is trained on `texts`, the training texts alone."""

    def save(folder: Path):
        specials = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
        untrained = RobertaTokenizer(vocab=specials, merges=[], model_max_length=126)
        tokenizer = untrained.train_new_from_iterator([list(texts)], vocab_size=600, show_progress=False)
        config = AutoConfig.for_model(
            family,
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=128,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        _seeded(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return _made(cache_folder() / "tiny" / f"{family}-{_digest(*texts)}", save)


def _made(folder: Path, save: Callable[[Path], None]) -> Path:
    """The folder, filled by `save` unless it exists."""
    if not folder.is_dir():
        try:
            with atomic_path(folder) as temporary:
                save(temporary)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and wrote the same
                raise
    return folder


def _seeded(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModel.from_config(config)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
