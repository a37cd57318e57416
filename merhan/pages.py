"""HTML pages that are complete in themselves: no other file, no request to any host."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from processing_merhan import SAMPLING_RATE


def render(template: str, **context: Any) -> str:
    """A page of merhan/templates."""
    environment = Environment(
        loader=PackageLoader("merhan"), autoescape=select_autoescape(default=True), undefined=StrictUndefined
    )
    return environment.get_template(template).render(**context)


def picture(draw: Callable[[Any], Any]) -> str:
    """A matplotlib drawing as the address of an image. `draw` is given the figure."""
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(6, 3), layout="constrained")
    draw(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def sound(waveform: np.ndarray) -> str:
    """Sound `(samples,)` at 16 kHz as the address of a recording."""
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLING_RATE, format="OGG")
    return "data:audio/ogg;base64," + base64.b64encode(file.getvalue()).decode()
