"""Tiny backbones with random weights, in the format of pretrained ones: for trials, dry runs and tests."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaTokenizer,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from merhan.files import atomic_path, cache_folder


_WIDTH, _LAYERS, _HEADS, _INNER = 64, 2, 4, 128
_COMMON = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _INNER,
}
_WAV2VEC2: dict[str, Any] = {
    **_COMMON,
    "conv_dim": (16, 32, 64, 64, 64),
    "conv_kernel": (10, 8, 4, 4, 4),
    "conv_stride": (5, 4, 2, 4, 2),
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_length": 4,
    "layerdrop": 0.0,
}
_DATA2VEC: dict[str, Any] = {**_WAV2VEC2, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 7}
_ENCODER_DECODER: dict[str, Any] = {
    "d_model": _WIDTH,
    "encoder_layers": _LAYERS,
    "decoder_layers": 1,
    "encoder_attention_heads": _HEADS,
    "decoder_attention_heads": _HEADS,
    "encoder_ffn_dim": _INNER,
    "decoder_ffn_dim": _INNER,
}
# Family (`model_type`) -> the fields of its config that make it tiny.
AUDIO_FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "wav2vec2-conformer"), _WAV2VEC2),
    **dict.fromkeys(("sew", "sew-d"), {**_WAV2VEC2, "squeeze_factor": 2}),
    "data2vec-audio": _DATA2VEC,
    "wav2vec2-bert": {**_COMMON, "conv_depthwise_kernel_size": 7, "layerdrop": 0.0, "mask_time_length": 4},
    "whisper": {**_ENCODER_DECODER, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    | {"decoder_start_token_id": 1},
}
_DECODER: dict[str, Any] = {**_COMMON, "num_key_value_heads": 2, "head_dim": 16}
_DEBERTA: dict[str, Any] = {
    **_COMMON,
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
TEXT_FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("roberta", "bert", "xlm-roberta", "camembert", "mpnet", "megatron-bert", "nomic_bert"), _COMMON),
    "distilbert": {"dim": _WIDTH, "n_layers": _LAYERS, "n_heads": _HEADS, "hidden_dim": _INNER},
    "electra": {**_COMMON, "embedding_size": _WIDTH},
    "albert": {**_COMMON, "embedding_size": 32},
    "rembert": {**_COMMON, "input_embedding_size": 32, "output_embedding_size": 32},
    "deberta": _DEBERTA,
    "deberta-v2": {**_DEBERTA, "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 16},
    "modernbert": {
        **_COMMON,
        "global_attn_every_n_layers": 2,
        "local_attention": 16,
        "cls_token_id": 0,
        "sep_token_id": 2,
    },
    "eurobert": {**_DECODER},
    "t5": {"d_model": _WIDTH, "d_kv": 16, "d_ff": _INNER, "num_layers": _LAYERS, "num_heads": _HEADS},
    "bart": _ENCODER_DECODER,
    "qwen3": _DECODER,
    "gemma3_text": {**_DECODER, "sliding_window": 16},
}
TEXT_POSITIONS = 128


def tiny_audio(family: str = "wav2vec2", seconds: int = 30, **fields: Any) -> Path:
    """A folder with a random speech backbone and its feature extractor, in the format of a pretrained one.

    Args:
        family: a key of [`AUDIO_FAMILIES`].
        seconds: fixed length of the input of Whisper, which has 50 positions per second.
        fields: further fields of the config, as `feat_extract_norm="group"`.
    """
    options = {**AUDIO_FAMILIES[family], **fields}
    extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    if family == "whisper":
        options["max_source_positions"] = 50 * seconds
        extractor = WhisperFeatureExtractor(chunk_length=seconds)
    elif family == "wav2vec2-bert":
        extractor = SeamlessM4TFeatureExtractor()
    config = AutoConfig.for_model(family, **options)

    def save(folder: Path):
        _seeded(config).save_pretrained(folder)
        extractor.save_pretrained(folder)

    return _made(cache_folder() / "tiny" / f"{family}-{_digest(config.to_json_string())}", save)


def tiny_text(texts: Sequence[str], family: str = "roberta") -> Path:
    """A folder with a random text backbone, and a tokenizer that is trained on `texts`, the training texts alone.

    Args:
        family: a key of [`TEXT_FAMILIES`].
    """

    def save(folder: Path):
        specials = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
        untrained = RobertaTokenizer(vocab=specials, merges=[], model_max_length=TEXT_POSITIONS - 2)
        tokenizer = untrained.train_new_from_iterator([list(texts)], vocab_size=600, show_progress=False)
        positions = {} if family == "t5" else {"max_position_embeddings": TEXT_POSITIONS}  # T5's are relative
        config = AutoConfig.for_model(
            family,
            **TEXT_FAMILIES[family],
            **positions,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        _seeded(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    fields = json.dumps(TEXT_FAMILIES[family], sort_keys=True)
    return _made(cache_folder() / "tiny" / f"{family}-{_digest(fields, *texts)}", save)


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
