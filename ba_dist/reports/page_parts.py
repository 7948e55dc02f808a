"""The parts of a report below its curves: input, incidents, layouts, copies, settings, versions."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ba_dist.config import from_dict, to_dict
from ba_dist.errors import UserError
from ba_dist.recipes import RECIPES, recipe
from ba_dist.reports import drawing
from ba_dist.reports.history import History, differing, text
from ba_dist.reports.incidents import incidents, many
from ba_dist.reports.markup import Element, make
from ba_dist.rules.layout import Layout
from ba_dist.run import copies_page

_SMALL = 48  # pixels: smaller images are shown larger, pixel by pixel


def table(
    head: Sequence[str], rows: Mapping[str, Sequence[str | Element]], notable: Sequence[str] = ()
) -> Element:
    """A table with a row for each name; those that are notable are marked."""
    top = [make("tr", *(make("th", cell) for cell in head))] if len(head) > 2 else []
    body = [
        make(
            "tr",
            make("th", name),
            *(make("td", cell) for cell in cells),
            class_="differs" if name in notable else None,
        )
        for name, cells in rows.items()
    ]
    whole = make("table", make("thead", *top), make("tbody", *body))
    return make("div", whole, class_="wide")


# --- each run for itself --------------------------------------------------------------------------


def apart(runs: Sequence[History], labels: Sequence[str], images: "Images") -> Iterator[Element]:
    """What cannot be laid over each other: side by side under one heading."""
    parts: dict[str, list[Element | None]] = {
        "What was unusual": [_incidents(run) for run in runs],
        "Groups and lanes": [_layout(run) for run in runs],
        "Copies as they were trained on": [_copies(run, images) for run in runs],
    }
    for title, found in parts.items():
        if all(part is None for part in found):
            continue
        yield make("h2", title)
        told = []
        for label, part in zip(labels, found, strict=True):
            head = make("h3", label) if len(runs) > 1 else None
            told.append(make("section", head, make("p", "–") if part is None else part))
        yield make("div", *told, class_="side" if len(runs) > 1 else None)


def _incidents(run: History) -> Element | None:
    lines = incidents(run)
    if not lines:
        return make("p", "Nothing: no record skipped, no update left out, no rank slow, one job.")
    return make("ul", *(make("li", line) for line in lines), class_="notable")


def _layout(run: History) -> Element | None:
    fields = run.facts.get("layout")
    if not isinstance(fields, dict):
        return None
    try:
        of = Layout(**fields)
    except (TypeError, UserError):  # of another version
        return None
    copies = "one copy" if of.copies_per_rank == 1 else f"{of.copies_per_rank} copies"
    words = (
        f"{many(of.world_size, 'rank')}, {many(of.groups, 'group')} of {of.group_size}. A group"
        f" shares {many(of.group_batch, 'sample')}; a rank holds {copies} of each. These go through"
        f" the network {of.microbatch} at a time; ghost batches hold {of.ghost_batch}."
    )
    return make("div", make("p", words), drawing.layout(of))


def input_of(runs: Sequence[History], labels: Sequence[str]) -> Iterator[Element]:
    """What was read, decoded and exchanged, on all ranks together."""
    every = [_counts(run) for run in runs]
    if any(every):
        names = dict.fromkeys(name for counts in every for name in counts)
        rows: dict[str, list[str | Element]] = {
            name: [counts.get(name, "–") for counts in every] for name in names
        }
        yield make("h2", "Input")
        yield table(["", *labels], rows)


def _counts(run: History) -> dict[str, str]:
    counts = run.summary.get("input")
    if not isinstance(counts, dict):
        return {}
    samples = run.summary.get("samples", 0)
    instances = run.summary.get("instances", 0)
    rows = {"how": text(counts.get("mode")), "trained on": f"{samples:,} samples"}
    rows["as"] = f"{instances:,} instances"
    if len(layouts := run.facts.get("layouts", [])) > 1:
        # Each job counts for itself.
        rows["counted below"], samples = f"since step {layouts[-1][0]}", 0
    for name, words in (("records_read", "records read"), ("records_decoded", "records decoded")):
        if (count := counts.get(name)) is not None:
            ratio = f", {count / samples:.3g} a sample" if samples else ""
            rows[words] = f"{count:,}{ratio}"
    for name, words in (("bytes_read", "read"), ("bytes_exchanged", "exchanged by ranks")):
        if (count := counts.get(name)) is not None:
            rows[words] = _bytes(count)
    rows["records skipped"] = f"{counts.get('records_skipped', 0):,}"
    rows["waited for input"] = f"{counts.get('wait_share', 0):.1%} of the time"
    return rows


def _bytes(count: float) -> str:
    power = min(4, int(math.log10(max(count, 1)) // 3))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


class Images:
    """Images as texts that a page holds, as long as they do not make it large."""

    def __init__(self, room: int):
        self._room = room

    def show(self, pixels: npt.NDArray[np.uint8], words: str, small: bool) -> Element | None:
        """An element; None where there is no more room."""
        from PIL import Image

        buffer = io.BytesIO()
        # Photographs are many times smaller as JPEG; of few pixels each one should be seen.
        kind, more = ("png", {}) if small else ("jpeg", {"quality": 85})
        Image.fromarray(pixels).save(buffer, kind, **more)
        data = base64.b64encode(buffer.getvalue()).decode()
        self._room -= len(data)
        if self._room < 0:
            return None
        height, width = pixels.shape[:2]
        scale = 2 if small else 1
        return make(
            "img",
            src=f"data:image/{kind};base64,{data}",
            alt=words,
            width=width * scale,
            height=height * scale,
            class_="small" if small else None,
        )


def _copies(run: History, images: Images) -> Element | None:
    rows = copies_page.read(run.folder / copies_page.NAME)
    if not rows:
        return None
    figures = []
    for label, pixels in rows:
        image = images.show(pixels, label, small=len(pixels) <= _SMALL)
        if image is None:
            figures.append(make("p", f"For the rest there was no room: see {copies_page.NAME}."))
            break
        figures.append(make("figure", make("figcaption", label), image))
    first = "The first samples of the first epoch: as they were read, then their first copies."
    return make("div", make("p", first, class_="faint"), *figures, class_="copies")


# --- settings -------------------------------------------------------------------------------------


def settings_of(runs: Sequence[History], labels: Sequence[str]) -> Iterator[Element]:
    every = [run.settings(aside=True) for run in runs]
    names = dict.fromkeys(name for settings in every for name in settings)
    rows = {name: [text(settings.get(name)) for settings in every] for name in names}
    if len(runs) > 1:
        notable = differing(runs)
        what = "What differs" if notable else "The runs differ in no setting."
    else:
        notable = _changed(runs[0])
        what = "Not as the recipe has it" if notable else ""
    if what:
        yield make("p", what, class_="faint")
    if notable:
        yield table(["", *labels], _shown({name: rows[name] for name in notable}))
    marked = [name.replace("_", "-") for name in notable]
    whole = table(["", *labels], _shown(rows), marked)
    yield make("details", make("summary", f"All {len(rows)} settings"), whole)


def _shown(rows: Mapping[str, list[str]]) -> dict[str, list[str | Element]]:
    return {name.replace("_", "-"): list(cells) for name, cells in rows.items()}


def _changed(run: History) -> list[str]:
    """Settings that are not those of the recipe; none where it is not known here."""
    name = run.config.get("recipe")
    if name not in RECIPES:
        return []
    try:
        mine = to_dict(from_dict(dict(run.config)))
    except UserError:  # of another version
        return []
    usual, seen = to_dict(recipe(name)), run.settings()
    return [
        key
        for part, values in mine.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if value != usual[part][key] and key in seen
    ]


def versions_of(runs: Sequence[History]) -> dict[str, list[str | Element]]:
    every = [run.facts.get("versions", {}) for run in runs]
    names = dict.fromkeys(name for versions in every for name in versions)
    rows: dict[str, list[str | Element]] = {
        name: [text(versions.get(name)) for versions in every] for name in names
    }
    rows["hosts"] = [_hosts(run) for run in runs]
    rows["folder"] = [str(run.folder.resolve()) for run in runs]
    return rows


def _hosts(run: History) -> str:
    hosts = list(dict.fromkeys(text(host) for host in run.facts.get("hosts", [])))
    more = f" … and {len(hosts) - 8} more" if len(hosts) > 8 else ""
    return ", ".join(hosts[:8]) + more
