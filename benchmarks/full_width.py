"""wav2vec2-base and roberta-base in full width with random weights, saved once, for benchmarks without a download."""

from pathlib import Path

import torch
from transformers import (
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from merhan.files import cache_folder


def full_width_backbones(texts: list[str]) -> tuple[str, str]:
    """Folders of the two; the tokenizer is trained on `texts`, the shapes are the published ones."""
    folder = cache_folder() / "full-width"
    audio, text = folder / "wav2vec2-base", folder / "roberta-base"
    torch.manual_seed(0)
    if not (audio / "preprocessor_config.json").is_file():
        Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(audio)  # the defaults are wav2vec2-base's shapes
        Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(audio)
    if not (text / "tokenizer_config.json").is_file():
        tokenizer = word_tokenizer(texts, 50_000)
        config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
        RobertaModel(config).save_pretrained(text)
        tokenizer.save_pretrained(text)
    return str(Path(audio)), str(Path(text))


def word_tokenizer(texts: list[str], vocabulary: int) -> RobertaTokenizer:
    """A tokenizer of RoBERTa's kind, trained on `texts`."""
    specials = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
    tokenizer = RobertaTokenizer(vocab=specials, merges=[], model_max_length=512)
    return tokenizer.train_new_from_iterator([texts], vocab_size=vocabulary, show_progress=False)
