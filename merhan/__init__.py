"""MER-HAN: emotion recognition from speech and its words, as a Hugging Face model.

The names below are imported when they are first used, so that `import merhan` costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from merhan.errors import missing_extra


if TYPE_CHECKING:
    from merhan.api import compare, evaluate, load_data, predict, timeline, train
    from merhan.errors import InputError
    from merhan.hub.publishing import publish
    from merhan.metrics.classification import EmotionMetrics
    from merhan.models.export import export
    from merhan.models.inference import load_checkpoint
    from merhan.prediction.predict import Predictor
    from merhan.prediction.streaming import StreamingRecogniser
    from merhan.recipe.loading import load_recipe

_MODULES = {
    "load_recipe": "merhan.recipe.loading",
    "load_data": "merhan.api",
    "train": "merhan.api",
    "evaluate": "merhan.api",
    "predict": "merhan.api",
    "timeline": "merhan.api",
    "compare": "merhan.api",
    "export": "merhan.models.export",
    "publish": "merhan.hub.publishing",
    "load_checkpoint": "merhan.models.inference",
    "Predictor": "merhan.prediction.predict",
    "StreamingRecogniser": "merhan.prediction.streaming",
    "EmotionMetrics": "merhan.metrics.classification",
    "InputError": "merhan.errors",
}
__all__ = [
    "EmotionMetrics",
    "InputError",
    "Predictor",
    "StreamingRecogniser",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "load_checkpoint",
    "load_data",
    "load_recipe",
    "predict",
    "publish",
    "timeline",
    "train",
]

try:
    __version__ = version("merhan")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'merhan' has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ImportError as error:
        message = missing_extra(error)
        if message is None:
            raise
        raise ImportError(f"merhan.{name}: {message}", name=error.name) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
