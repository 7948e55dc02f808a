"""How pictures and pages look: the colours and markers of lines, and the style of report.html.

A page has one column or two as there is room, and is light or dark as the reader has it.
"""

from typing import Any

# Okabe and Ito's colours, which colour-blind people tell apart. On dark ground blue and black give
# way to the lighter ones; the yellow is light enough only there.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DARK = ("#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#f0e442", "#ffffff")
# A line has a marker as well: in grey, and to some readers, a few of the colours are alike.
_HATCHES = ("", "//", "..", "\\\\", "xx")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The same in a page, as outlines around (0, 0).
OUTLINES = {
    "o": "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "s": "M-3 -3h6v6h-6z",
    "^": "M0 -4l4 7h-8z",
    "D": "M0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
    "v": "M0 4l-4 -7h8z",
    "P": "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "X": "M-4 -2l2 -2l2 2l2 -2l2 2l-2 2l2 2l-2 2l-2 -2l-2 2l-2 -2l2 -2z",
}


def color_of(number: int) -> str:
    """The colour of a line of a picture; they begin again after the last."""
    return COLORS[number % len(COLORS)]


def marker_of(number: int) -> str:
    """The marker of a line, as matplotlib names it: of 49 lines, no two have both alike."""
    return MARKERS[(number + number // len(COLORS)) % len(MARKERS)]


def look_of(number: int) -> dict[str, Any]:
    """Colour and marker of a line, for matplotlib."""
    return {"color": color_of(number), "marker": marker_of(number)}


def bar_look(number: int) -> dict[str, Any]:
    """Of a part of a stacked bar: a colour and a hatch, for matplotlib."""
    return {
        "color": color_of(number),
        "hatch": _HATCHES[number % len(_HATCHES)],
        "edgecolor": "white",
    }


def _variables(colors: tuple[str, ...]) -> str:
    return "".join(f"--c{i}: {color}; " for i, color in enumerate(colors))


CSS = f"""
:root {{ color-scheme: light dark; {_variables(COLORS)}
  --ground: #ffffff; --ink: #1b1d21; --faint: #5a6068; --rule: #d9dce1; --panel: #f5f6f8;
  --notable: #fff3d6; }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK)}
  --ground: #15171b; --ink: #e8eaed; --faint: #a3a9b2; --rule: #383d45; --panel: #1e2126;
  --notable: #3b3117; }} }}
{"".join(f".c{i} {{ --c: var(--c{i}); }} " for i in range(len(COLORS)))}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1.2rem clamp(0.8rem, 3vw, 2.5rem) 3rem; max-width: 76rem;
  background: var(--ground); color: var(--ink); font: 15px/1.45 system-ui, sans-serif;
  overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; margin: 0 0 0.2rem; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 0.6rem; border-bottom: 1px solid var(--rule); }}
h3 {{ font-size: 1rem; margin: 1rem 0 0.4rem; }}
p {{ margin: 0.3rem 0; }}
.faint, figcaption {{ color: var(--faint); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: 0.15rem 1.2rem 0.15rem 0; vertical-align: top;
  border-bottom: 1px solid var(--rule); }}
th {{ font-weight: 500; min-width: 6rem; }}
tbody th {{ color: var(--faint); overflow-wrap: break-word; }}
td {{ min-width: 4rem; max-width: 22rem; }}
.differs td {{ background: var(--notable); }}
.side {{ display: grid; gap: 0.5rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }}
.charts {{ display: grid; gap: 0.5rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }}
.side > *, .charts > * {{ min-width: 0; }}
figure {{ margin: 0 0 0.8rem; }}
svg {{ display: block; width: 100%; height: auto; }}
.chart {{ max-width: 38rem; }}
svg text {{ fill: currentColor; font-size: 12px; }}
.middle {{ text-anchor: middle; }}
.end {{ text-anchor: end; }}
.grid {{ stroke: var(--rule); }}
.training, .validation {{ fill: none; stroke: var(--c); stroke-linejoin: round; }}
.training {{ stroke-width: 1.4; stroke-dasharray: 6 3; }}
.validation {{ stroke-width: 2.2; }}
.plain {{ fill: none; stroke: var(--c); stroke-width: 1.8; }}
.raw {{ fill: var(--c); stroke: var(--c); opacity: 0.22; }}
.mark {{ fill: var(--c); }}
.group {{ fill: var(--panel); stroke: var(--rule); }}
.lane {{ fill: var(--c); fill-opacity: 0.2; stroke: var(--c); }}
.legend {{ display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; padding: 0; margin: 0.3rem 0 0.8rem;
  list-style: none; }}
.legend i {{ display: inline-block; width: 1.6rem; margin-right: 0.4rem; vertical-align: 0.28em;
  border-top: 3px solid var(--c, currentColor); }}
.legend svg {{ display: inline-block; width: 2.2rem; height: 0.9rem; margin-right: 0.4rem;
  vertical-align: -0.1em; }}
.legend i.band {{ border-top: 0.8rem solid var(--rule); vertical-align: 0; }}
.legend i.dashed {{ border-top: 2px dashed currentColor; }}
.legend i.solid {{ border-top: 2px solid currentColor; }}
.notable {{ background: var(--notable); padding: 0.5rem 0.8rem 0.5rem 1.8rem;
  border-radius: 6px; margin: 0.3rem 0; }}
.copies img {{ max-width: 100%; height: auto; display: block; }}
.copies img.small {{ image-rendering: pixelated; }}
summary {{ cursor: pointer; margin: 0.6rem 0; }}
"""
