"""Removal of local paths from what is published."""

from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from merhan.recipe.schema import Recipe


def remove_local_paths(recipe: Recipe) -> Recipe:
    """A copy of the recipe in which each path of this machine is reduced to its last component."""
    public = cast(Recipe, OmegaConf.to_object(OmegaConf.structured(recipe)))
    public.output_dir = Path(recipe.output_dir).name
    public.data.source = _without_path(recipe.data.source)
    public.data.options = {key: _without_path(value) for key, value in recipe.data.options.items()}
    public.model.audio_backbone = _without_path(recipe.model.audio_backbone)
    public.model.text_backbone = _without_path(recipe.model.text_backbone)
    public.model.checkpoint = _without_path(recipe.model.checkpoint)
    return public


def _without_path(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_path(element) for element in value]
    if isinstance(value, str) and Path(value).exists():
        return Path(value).name
    return value
