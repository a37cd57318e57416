"""Line charts of an HTML page: from data to the SVG coordinates that `charts.html.jinja` draws.

A chart has labelled axes with tick values, one line per series, and a legend. Colours are CSS classes, so that a page
can show the same chart on a light and on a dark background.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator


WIDTH = 360  # of the whole drawing, in SVG units; about the width of a phone in pixels

LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 42  # margins around the plotting area

SMALLEST_RADIUS, LARGEST_RADIUS = 2.0, 11.0  # of the marker of a point without and with all of the weight


class Axis(NamedTuple):
    """An axis with its label, range and ticks."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]  # value and text


class Series(NamedTuple):
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]  # x and y, in data coordinates
    style: str  # CSS class that sets the colour, `series1` to `series4`
    weights: Sequence[float] | None = None  # share of the rows at each point, shown as the area of its marker


class Reference(NamedTuple):
    """A straight line to compare the series with."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]
    style: str  # CSS class, `dashed` or `dotted`


class Marker(NamedTuple):
    """A point in SVG coordinates, with the text that is shown when the pointer rests on it."""

    x: str
    y: str
    radius: str
    text: str


class Box(NamedTuple):
    """The plotting area in SVG coordinates."""

    left: int
    right: int
    top: int
    bottom: int


class Chart(NamedTuple):
    """A chart in SVG coordinates."""

    title: str
    x: Axis
    y: Axis
    width: int
    height: int
    box: Box
    x_ticks: list[tuple[str, str]]  # coordinate and text
    y_ticks: list[tuple[str, str]]
    lines: list[tuple[str, str, list[Marker]]]  # CSS class, points of the polyline, markers
    references: list[tuple[str, list[str]]]  # CSS class; x1, y1, x2, y2
    legend: list[tuple[str, str]]  # CSS class and name


def line_chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], references: Sequence[Reference] = (), height: int = 230
) -> Chart:
    """Lay out a chart.

    Args:
        title: what is shown, also the accessible name.
        x, y: the axes.
        series: lines with markers.
        references: dashed or dotted lines without markers.
        height: of the drawing, whose width is `WIDTH`.
    """
    box = Box(LEFT, WIDTH - RIGHT, TOP, height - BOTTOM)
    scale = _Scale(x, y, box)
    legend = [(line.style, line.name) for line in series]
    legend += [(line.style, line.name) for line in references]
    return Chart(
        title,
        x,
        y,
        WIDTH,
        height,
        box,
        x_ticks=[(scale.x_text(value), text) for value, text in x.ticks],
        y_ticks=[(scale.y_text(value), text) for value, text in y.ticks],
        lines=[_line(line, scale) for line in series],
        references=[(line.style, [*scale.point(line.start), *scale.point(line.end)]) for line in references],
        legend=legend,
    )


def number_axis(label: str, high: float, integer: bool = False) -> Axis:
    """An axis from 0 to the first round tick value at or above `high`, which is positive."""
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=integer)
    ticks = [(float(value), f"{value:g}") for value in locator.tick_values(0.0, high)]
    return Axis(label, 0.0, ticks[-1][0], ticks)


def category_axis(label: str, names: Sequence[str]) -> Axis:
    """An axis of named positions 0, 1, ..."""
    return Axis(label, 0.0, float(max(len(names) - 1, 1)), [(float(place), name) for place, name in enumerate(names)])


class _Scale(NamedTuple):
    """From data coordinates to SVG coordinates, whose y axis points down."""

    x: Axis
    y: Axis
    box: Box

    def x_text(self, value: float) -> str:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return f"{self.box.left + share * (self.box.right - self.box.left):.1f}"

    def y_text(self, value: float) -> str:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return f"{self.box.bottom - share * (self.box.bottom - self.box.top):.1f}"

    def point(self, point: tuple[float, float]) -> tuple[str, str]:
        return self.x_text(point[0]), self.y_text(point[1])


def _line(series: Series, scale: _Scale) -> tuple[str, str, list[Marker]]:
    coordinates = [scale.point(point) for point in series.points]
    weights = series.weights or [0.0] * len(coordinates)
    markers = [
        Marker(x, y, _radius(weight), _point_text(series, number))
        for number, ((x, y), weight) in enumerate(zip(coordinates, weights, strict=True))
    ]
    return series.style, " ".join(f"{x},{y}" for x, y in coordinates), markers


def _radius(weight: float) -> str:
    return f"{SMALLEST_RADIUS + (LARGEST_RADIUS - SMALLEST_RADIUS) * weight**0.5:.1f}"


def _point_text(series: Series, number: int) -> str:
    x, y = series.points[number]
    text = f"{series.name}: {x:.3g}, {y:.3f}"
    if series.weights:
        text += f" ({series.weights[number]:.0%} of the utterances)"
    return text
