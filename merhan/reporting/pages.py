"""Self-contained HTML pages: no other file and no request to any host."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib import rc_context
from matplotlib.figure import Figure

from merhan.reporting.matplotlib_plots import INK, STYLE
from processing_merhan import SAMPLING_RATE


# Text stays text in the SVG, so that the browser has glyphs for every script; fixed ids make equal plots equal files.
SVG_STYLE: dict[Any, Any] = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": "merhan"}

THEME = "svg { color: #222 } @media (prefers-color-scheme: dark) { svg { color: #ddd } }"


def render(template: str, **context: Any) -> str:
    """Fill in a template of `merhan/reporting/templates`."""
    environment = Environment(
        loader=PackageLoader("merhan.reporting"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)


def figure_data_url(draw: Callable[[Figure], Any]) -> str:
    """A matplotlib drawing as the data URL of an SVG image whose text and axes follow the reader's light or dark mode.

    Args:
        draw: draws into the empty figure that it is called with, whose size it may change.
    """
    file = io.StringIO()
    with rc_context(SVG_STYLE):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        draw(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue().replace(INK, "currentColor").replace("</style>", f"{THEME}</style>", 1)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def audio_data_url(waveform: np.ndarray) -> str:
    """A recording `(samples,)` at 16 kHz as the data URL of an Ogg file."""
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLING_RATE, format="OGG")
    return "data:audio/ogg;base64," + base64.b64encode(file.getvalue()).decode()
