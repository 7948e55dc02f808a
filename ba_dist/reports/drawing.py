"""Charts and layouts as SVG inside a page: their colours follow the page, light or dark.

They are drawn here and not by matplotlib, whose pictures have the colours of one of the two, and
whose import takes longer than all of a report.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ba_dist.reports.history import Floats
from ba_dist.reports.incidents import many
from ba_dist.reports.markup import Element, make
from ba_dist.reports.style import OUTLINES, marker_of
from ba_dist.reports.ticks import ticks_of, ticks_of_log
from ba_dist.rules.layout import Layout

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 12, 10, 42
_POINTS = 400  # of a line at most: more are not seen, and make the page large
_MARKS = 6  # of a line of many points, about
COLORS = 7  # classes c0 … c6 of the page


@dataclass(frozen=True)
class Stroke:
    """A line of a chart.

    Args:
        x, y: [n].
        color: number of its colour.
        kind: `training`, `validation`, `plain`, or `raw`: single steps, drawn as their range.
        width: of the line; None for that of its kind.
    """

    x: Floats
    y: Floats
    color: int
    kind: str
    width: float | None = None


def chart(
    strokes: Sequence[Stroke], x_label: str, y_label: str, log: bool = False
) -> Element | None:
    """A chart; None where there is nothing to draw.

    Args:
        strokes: its lines, the first one below the others.
        x_label: of the axis, with its unit.
        y_label: of the axis, with its unit.
        log: whether y is logarithmic; what is not above 0 is left out.
    """
    shown = []
    for stroke in strokes:
        good = np.isfinite(stroke.x) & np.isfinite(stroke.y) & ((stroke.y > 0) | (not log))
        if good.any():
            y = np.log10(stroke.y[good]) if log else stroke.y[good]
            shown.append(replace(stroke, x=stroke.x[good], y=y))
    if not shown:
        return None
    frame = _Frame(shown)
    marks = [(tick, math.log10(tick)) for tick in ticks_of_log(*frame.y)] if log else []
    marks = marks or [(tick, tick) for tick in ticks_of(*frame.y)]
    svg = make("svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_="chart")
    svg.append(make("title", f"{y_label} over {x_label}"))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for value, place in marks:
        y = f"{frame.down(place):.1f}"
        svg.append(make("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
        svg.append(make("text", _number(value), x=_LEFT - 6, y=y, dy="0.35em", class_="end"))
    for tick in ticks_of(*frame.x):
        x = f"{frame.right(tick):.1f}"
        svg.append(make("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid"))
        svg.append(make("text", _number(tick), x=x, y=bottom + 16, class_="middle"))
    middle = (_LEFT + right) / 2
    svg.append(make("text", x_label, x=middle, y=_HEIGHT - 6, class_="middle"))
    place = (_TOP + bottom) / 2
    turned = f"rotate(-90 13 {place})"
    svg.append(make("text", y_label, x=13, y=place, transform=turned, class_="middle"))
    svg.extend(part for stroke in shown for part in _drawn(stroke, frame))
    return svg


class _Frame:
    """Numbers → positions in a chart."""

    def __init__(self, strokes: Sequence[Stroke]):
        self.x = _range([s.x for s in strokes], 0.0)
        self.y = _range([s.y for s in strokes], 0.05)

    def right(self, x: float) -> float:
        low, high = self.x
        return _LEFT + (x - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def down(self, y: float) -> float:
        low, high = self.y
        return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def points(self, x: Floats, y: Floats) -> str:
        return " ".join(
            f"{self.right(a):.1f},{self.down(b):.1f}" for a, b in zip(x, y, strict=True)
        )


def _range(every: list[Floats], margin: float) -> tuple[float, float]:
    low, high = min(float(a.min()) for a in every), max(float(a.max()) for a in every)
    if high - low <= 1e-9 * abs(high):  # rounding is no difference
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    return low - margin * (high - low), high + margin * (high - low)


def _drawn(stroke: Stroke, frame: _Frame) -> list[Element]:
    look = f"{stroke.kind} c{stroke.color % COLORS}"
    if stroke.kind == "raw":
        parts = np.array_split(np.arange(len(stroke.x)), min(len(stroke.x), _POINTS // 2))
        x = np.array([stroke.x[part].mean() for part in parts])
        low = np.array([stroke.y[part].min() for part in parts])
        high = np.array([stroke.y[part].max() for part in parts])
        around = frame.points(np.r_[x, x[::-1]], np.r_[high, low[::-1]])
        return [make("polygon", points=around, class_=look)]
    every = max(1, math.ceil(len(stroke.x) / _POINTS))
    chosen = np.unique(np.r_[0 : len(stroke.x) : every, len(stroke.x) - 1])
    x, y = stroke.x[chosen], stroke.y[chosen]
    width = None if stroke.width is None else f"stroke-width:{min(stroke.width, 12):g}"
    found = [make("polyline", points=frame.points(x, y), class_=look, style=width)]
    if stroke.kind == "training" and len(x) > 1:
        return found  # the marks of its validation are beside it
    every = 1 if len(x) <= 12 else math.ceil(len(x) / _MARKS)
    first = stroke.color * every // 3 % every
    places = zip(x[first::every], y[first::every], strict=True)
    return found + [_mark(stroke.color, frame.right(a), frame.down(b)) for a, b in places]


def _mark(number: int, x: float, y: float) -> Element:
    """The marker of a line, as `marker_of` says, around a point."""
    look = f"mark c{number % COLORS}"
    outline = OUTLINES[marker_of(number)]
    return make("path", d=outline, transform=f"translate({x:.1f} {y:.1f})", class_=look)


def key(number: int) -> Element:
    """A line of a legend, with its colour and marker."""
    svg = make("svg", viewBox="0 0 36 12", class_="key", aria_hidden="true")
    svg.append(make("polyline", points="0,6 36,6", class_=f"validation c{number % COLORS}"))
    svg.append(_mark(number, 18, 6))
    return svg


def _number(value: float) -> str:
    """A tick: `0.05`, `1500`, `2e+06`, with no more digits than it needs."""
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e5 else f"{value:.6g}"


# --- groups and lanes -----------------------------------------------------------------------------

_LANES, _ACROSS, _RANKS = 8, 4, 32  # lanes of a group, side by side, and ranks that are drawn
_BOX, _TALL, _PAD, _HEAD = 126, 42, 8, 20


def layout(of: Layout) -> Element:
    """Groups as boxes that hold one part of the batch, and in them lanes with their copies.

    Args:
        of: the layout; of a large one the first groups and lanes are drawn, and the rest told.
    """
    lanes = min(of.group_size, _LANES)
    more_lanes = of.group_size - lanes
    groups = min(of.groups, max(1, _RANKS // lanes))
    boxes = lanes + (more_lanes > 0)
    across = min(boxes, _ACROSS)
    wide = across * (_BOX + _PAD) + _PAD
    tall = math.ceil(boxes / across) * (_TALL + _PAD) + _HEAD + _PAD
    columns = min(groups, max(1, _ACROSS // across))
    rows = math.ceil(groups / columns)
    more = of.groups - groups
    width = columns * (wide + _PAD) - _PAD + 2
    height = rows * (tall + _PAD) - _PAD + 2 + (_HEAD if more else 0)
    svg = make("svg", viewBox=f"0 0 {width} {height}", role="img", class_="layout")
    svg.set("style", f"max-width:{width}px")
    svg.append(make("title", f"{many(of.groups, 'group')} of {many(of.group_size, 'rank')}"))
    for group in range(groups):
        left, top = 1 + group % columns * (wide + _PAD), 1 + group // columns * (tall + _PAD)
        svg.append(make("rect", x=left, y=top, width=wide, height=tall, rx=6, class_="group"))
        text = f"group {group}: {many(of.group_batch, 'sample')}"
        svg.append(make("text", text, x=left + _PAD, y=top + 16))
        for box in range(boxes):
            x = left + _PAD + box % across * (_BOX + _PAD)
            y = top + _HEAD + box // across * (_TALL + _PAD) + 4
            if box == lanes:
                svg.append(make("text", f"… {more_lanes} more", x=x, y=y + 25))
                continue
            rank = group * of.group_size + box
            svg.extend(_lane(x, y, rank, box, of.copies(rank)))
    if more:
        svg.append(make("text", f"… and {many(more, 'group')} more", x=2, y=height - 6))
    return svg


def _lane(x: int, y: int, rank: int, lane: int, copies: range) -> list[Element]:
    look = f"lane c{lane % COLORS}"
    told = f"copy {copies[0]}" if len(copies) == 1 else f"copies {copies[0]} … {copies[-1]}"
    return [
        make("rect", x=x, y=y, width=_BOX, height=_TALL, rx=4, class_=look),
        make("text", f"rank {rank}, lane {lane}", x=x + _BOX / 2, y=y + 17, class_="middle"),
        make("text", told, x=x + _BOX / 2, y=y + 33, class_="middle"),
    ]
