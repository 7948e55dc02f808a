"""report.html: what stands in it, that it needs nothing else, and that names in it stay names."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ba_dist.cli import commands as cli
from ba_dist.data.copies import Copies
from ba_dist.errors import UserError
from ba_dist.reports import drawing
from ba_dist.reports.history import read
from ba_dist.reports.incidents import incidents
from ba_dist.reports.page import page, write_report
from ba_dist.rules.layout import Layout
from ba_dist.run import copies_page
from ba_dist.training import _write_report
from tests import browser

from .histories import change, change_events, into_perplexity, leave, write

EVIL = "<script>alert('x')<\\script><img src=https:&#47;&#47;a.b onerror=alert(1)> \"'&amp; $x_1$"
# What a page may have; nothing of it runs or fetches.
TAGS = {
    *("html", "head", "meta", "link", "title", "style", "body", "h1", "h2", "h3", "p", "div"),
    *("section", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "i", "figure"),
    *("figcaption", "img", "details", "summary"),
    *("svg", "line", "text", "polyline", "polygon", "path", "rect"),
}


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


def draw_copies(folder, labels=("coat", "shirt"), side=28, copies=4, channels=1):
    """A copies.png of noise, and the pixels that it was made of."""
    draw = np.random.default_rng(0)
    shape = (side, side, channels)
    samples = [
        Copies(
            number,
            label,
            draw.integers(0, 256, shape, np.uint8),
            [draw.random(shape, np.float32) for _ in range(copies)],
        )
        for number, label in enumerate(labels)
    ]
    copies_page.write(folder / "copies.png", samples)
    return samples


def text_of(folder):
    return page([read(folder)], "mark")


# --- what stands in it ----------------------------------------------------------------------------


def test_a_report_says_what_came_of_the_run(tmp_path):
    run = leave(tmp_path / "first", [0.5, 0.8, 0.75], multiplicity=4, cutout=6)
    draw_copies(run)
    done = CliRunner().invoke(cli.cli, ["report", str(run)])
    assert done.output == f"{run}/report.html\n"
    found = Page((run / "report.html").read_text())
    text = " ".join(found.texts)
    for words in (
        *("first", "resnet8 on fashion_mnist", "75.00%", "80.00%, at step 20", "30 (3 epochs)"),
        *("18:00 min", "100 images/s", "validation accuracy", "loss", "accuracy (%)", "epoch"),
        *(
            "group 0: 64 samples",
            "rank 1, lane 1",
            "copies 2 … 3",
            "cooperative",
            "sample 1, shirt",
        ),
        *("Nothing: no record skipped", "Not as the recipe has it", np.__version__, "node1"),
    ):
        assert words in text, words
    assert found.tags <= TAGS


def test_settings_that_are_not_the_recipe_s_are_told_apart(tmp_path):
    text = text_of(leave(tmp_path / "run", cutout=6))
    above, below = text.split("<details>")
    assert "cutout" in above.split("Not as the recipe has it")[1]
    assert "momentum" not in above and "momentum" in below


def test_several_runs_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 4):
        leave(tmp_path / f"m{number}", [0.1 * number], multiplicity=number)
    done = CliRunner().invoke(cli.cli, ["report", "m1", "m4"])
    assert done.output == "report-m1-m4.html\n"
    text = (tmp_path / "report-m1-m4.html").read_text()
    assert text.index("10.00%") < text.index("40.00%")
    for number in range(2):  # a colour each
        assert re.search(rf'<polyline [^>]*class="validation c{number}"', text)
    # A marker each as well, in the charts and in the legend.
    charts, legend = text.split('class="charts"')[1], re.search("(?s)<ul.*?</ul>", text)[0]
    for part in (charts, legend):
        shapes = {
            c: set(re.findall(rf'<path d="([^"]+)" [^>]*class="mark c{c}"', part)) for c in (0, 1)
        }
        assert len(shapes[0]) == len(shapes[1]) == 1 and shapes[0] != shapes[1]
    assert "What differs" in text and text.count("<h1>") == 1


def test_a_run_of_a_language_model(tmp_path):
    text = text_of(into_perplexity(leave(tmp_path / "run", [9.0, 7.0, 8.0])))
    assert "70, at step 20" in text and ">perplexity</text>" in text


@pytest.mark.parametrize("missing", ["config.json", "summary.json", "both", "events"])
def test_a_report_is_made_of_what_there_is(tmp_path, missing):
    run = leave(tmp_path / "run")
    for name in ("config.json", "summary.json"):
        if missing in (name, "both"):
            (run / name).write_text("{broken")
    if missing == "events":
        (run / "metrics.jsonl").write_text('{"event": "step", "st')
    found = Page(text_of(run))
    assert found.tags <= TAGS and "run" in found.texts
    told = "It has not come to its end" in " ".join(found.texts)
    assert told == (missing in ("summary.json", "both"))


def test_without_metrics_it_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        write_report([tmp_path])


def test_what_was_unusual(tmp_path):
    run = leave(tmp_path / "run")
    assert incidents(read(run)) == []
    reading = {"records_skipped": 2, "wait_share": 0.25}
    change(run, "summary.json", lambda s: s.update(skipped_updates=7, input=reading))
    layouts = [[0, {"world_size": 4}], [12, {"world_size": 2}], [20, {"world_size": 2}]]
    change(run, "config.json", lambda facts: facts.update(layouts=layouts))
    (run / "nonfinite").mkdir()
    for rank in range(2):  # step 7 twice: a job was broken off behind it
        lines = "".join(f'{{"step": {step}}}\n' for step in (7, 7, 9, 99)) + '{"st'
        (run / "nonfinite" / f"rank-0000{rank}.jsonl").write_text(lines)
    slow = {"event": "straggler", "step": 5, "rank": 3, "host": "n1", "phase": "input"}
    events = [*read(run).events, slow, slow]
    write(run, events=events)
    assert incidents(read(run)) == [
        "2 corrupt records skipped; another sample took the place of each.",
        "Training waited for input 25% of the time; more cores a rank, --io-threads or faster"
        " storage would speed it up.",
        "2 updates left out, of a gradient that was not finite, the first at step 7.",
        "5 updates left out while the scale of the loss was found.",
        "Rank 3 on n1 was slow in input, named 2 times.",
        "It went on after step 12, on 2 ranks, before on 4.",
        "It went on after step 20, on 2 ranks.",
    ]
    (run / "summary.json").unlink()
    assert incidents(read(run))[0] == (
        "It has not come to its end: 30 of 30 steps are written down."
    )


@pytest.mark.parametrize(
    ("ranks", "copies", "batch", "drawn", "told"),
    [
        (1, 1, 64, 1, ["copy 0"]),
        (4, 4, 64, 4, ["copy 3"]),
        (8, 2, 64, 8, ["group 3: 16 samples"]),
        (40, 40, 64, 8, ["… 32 more"]),
        (512, 4, 8192, 32, ["… and 120 groups more"]),
    ],
)
def test_groups_and_lanes_are_drawn_as_far_as_they_fit(ranks, copies, batch, drawn, told):
    of = Layout(world_size=ranks, multiplicity=copies, batch_size=batch)
    svg = drawing.layout(of)
    lanes = [part for part in svg if part.get("class", "").startswith("lane")]
    assert len(lanes) == drawn
    texts = [part.text for part in svg]
    assert all(words in texts for words in told)
    width, height = map(float, svg.get("viewBox").split()[2:])
    for box in svg.iter("rect"):
        x, y, w, h = (float(box.get(name)) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height


def test_a_chart_has_its_points_where_they_belong():
    x, y = np.array([0.0, 1, 2]), np.array([1.0, np.nan, 100])
    svg = drawing.chart([drawing.Stroke(x, y, 0, "validation")], "epoch", "loss", log=True)
    (line,) = svg.iter("polyline")
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in line.get("points").split())
    assert x0 == 70 and x1 == 460 - 12 and y0 > y1
    ticks = {t.text: float(t.get("y")) for t in svg.iter("text") if t.get("class") == "end"}
    assert ticks["1"] == pytest.approx(y0, abs=0.1) and ticks["100"] == pytest.approx(y1, abs=0.1)
    marks = [part.get("transform") for part in svg.iter("path")]
    assert marks == [f"translate({x0:.1f} {y0:.1f})", f"translate({x1:.1f} {y1:.1f})"]
    assert drawing.chart([drawing.Stroke(x[:0], y[:0], 0, "raw")], "epoch", "loss") is None


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_are_kept_pixel_by_pixel(tmp_path, channels):
    samples = draw_copies(tmp_path, channels=channels)
    rows = copies_page.read(tmp_path / "copies.png")
    assert [label for label, _ in rows] == ["sample 0, coat", "sample 1, shirt"]
    for sample, (_, pixels) in zip(samples, rows, strict=True):
        images = [
            sample.original,
            *(np.rint(255 * copy).astype(np.uint8) for copy in sample.copies),
        ]
        for number, image in enumerate(images):
            shown = pixels[:28, 30 * number : 30 * number + 28]
            np.testing.assert_array_equal(shown, np.broadcast_to(image, shown.shape))


def test_large_images_are_made_smaller_and_a_broken_page_is_none(tmp_path):
    draw_copies(tmp_path, side=224, channels=3)
    ((_, pixels), _) = copies_page.read(tmp_path / "copies.png")
    assert pixels.shape == (96, 5 * 98 - 2, 3)
    path = tmp_path / "copies.png"
    path.write_bytes(path.read_bytes()[:5000])
    assert copies_page.read(path) == []
    Image.new("RGB", (9, 9)).save(path)
    assert copies_page.read(path) == []
    assert copies_page.read(tmp_path / "no.png") == []


def test_the_page_shows_them_as_they_are(tmp_path):
    run = leave(tmp_path / "run")
    draw_copies(run)
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text_of(run))
    for data, (_, pixels) in zip(found, copies_page.read(run / "copies.png"), strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(shown, pixels)


# --- size, files ----------------------------------------------------------------------------------


def test_a_long_run_and_many_runs_stay_below_two_megabytes(tmp_path):
    runs = []
    for number in range(8):
        run = leave(tmp_path / f"{number}", np.full(100, 0.5), per_epoch=60, every=1, seed=number)
        draw_copies(run, labels="abcd", side=224, copies=8, channels=3)
        runs.append(run)
    assert write_report(runs[:1]).stat().st_size < 500_000
    path = write_report(runs, tmp_path / "all.html")
    assert 200_000 < path.stat().st_size < 2_000_000
    assert "there was no room: see copies.png" in path.read_text()


def test_only_an_earlier_report_of_the_same_runs_is_replaced(tmp_path):
    one, other = leave(tmp_path / "one"), leave(tmp_path / "other", seed=1)
    output = tmp_path / "x.html"
    for _ in range(2):
        write_report([one, other], output)
    with pytest.raises(UserError, match="is not a report of the same"):
        write_report([one], output)


def test_no_run_fails_for_lack_of_a_report(tmp_path, capsys):
    run = leave(tmp_path / "run")
    (run / "report.html").mkdir()
    _write_report(run)
    (run / "report.html").rmdir()
    (run / "report.html").write_text("of somebody's own")
    _write_report(run)
    change_events(run, lambda e: {**e, "loss": "much"} if e["step"] == 5 else e)
    (run / "report.html").unlink()
    _write_report(run)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and all(line.startswith("warning: no report.html: ") for line in said)
    assert not (run / "report.html").exists()


# --- names that would like to be more -------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path):
    """A run everything in which that people name is hostile."""
    run = leave(tmp_path / EVIL, data_dir=EVIL, init_from="</style><script>1</script>", model=EVIL)
    draw_copies(run, labels=[EVIL, "</td><iframe src=http://a.b>\x00\x1b[31m\ud800"])

    def edit(facts):
        facts.update(hosts=[EVIL, "</body>"], versions={EVIL: "<b>1</b>"})
        facts["config"]["recipe"] = "</title><script>2</script>"
        facts["judged"] = {**facts["judged"], "headline": "<u>good</u>"}

    change(run, "config.json", edit)
    slow = {"event": "straggler", "step": 5, "rank": 3, "host": "<s>n1", "phase": "input"}
    write(run, events=[*read(run).events, slow])
    return run


def test_hostile_names_stay_text(hostile):
    found = Page(text_of(hostile))
    assert found.tags <= TAGS
    texts = found.texts
    shown = EVIL.replace("$", "$")
    assert shown in texts and f"{shown} on fashion_mnist" in " ".join(texts)
    assert "<u>good</u>" in texts and "</title><script>2</script>" in " ".join(texts)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    links = [value for name, value in found.attributes if name in ("src", "href")]
    assert all(value.startswith("data:") for value in links) and links
    assert not re.search("[\x00-\x08\x1b\ud800]", text_of(hostile))


needs_browser = pytest.mark.skipif(
    not browser.there(),
    reason=f"no {browser.PROGRAM}: `python -m tests.browser` installs it (root, apt-get)",
)


@pytest.fixture(scope="module")
def chromium():
    with browser.browser() as opened:
        yield opened


@needs_browser
def test_the_browser_here_tells_of_what_is_fetched_and_run(chromium, tmp_path):
    """Otherwise the tests below could not fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src=http://127.0.0.1:9/x.png><script>console.error(1); y.z</script>")
    chromium.open(bad.as_uri())
    assert "http://127.0.0.1:9/x.png" in chromium.requests()
    kinds = {event["method"] for event in chromium.complaints()}
    assert kinds >= {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"}


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 640, 360])
def test_a_browser_fetches_nothing_runs_nothing_and_cuts_nothing_off(
    chromium, hostile, tmp_path, width, dark
):
    other = leave(tmp_path / ("a_very_long_name" * 10), [0.2, 0.4], multiplicity=4)
    tiny = {"lr": 1.5e-5, "grad_norm": 5.22}  # long numbers, and ticks that lie close
    change_events(other, lambda event: {**event, **tiny} if event["step"] < 12 else event)
    for runs in ([hostile], [other], [hostile, other]):
        path = write_report(runs, tmp_path / f"{runs[0].name[:3]}{len(runs)}.html")
        chromium.open(path.as_uri(), width=width, dark=dark)
        assert [url for url in chromium.requests() if not url.startswith("data:")] == [
            path.as_uri()
        ]
        assert chromium.complaints() == []
        assert chromium.value("document.querySelectorAll('script, iframe').length") == 0
        if runs == [hostile]:
            assert chromium.value("document.querySelector('h1').textContent") == EVIL
        assert chromium.value("document.documentElement.scrollWidth") == width
        ground = chromium.value("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(21, 23, 27)" if dark else "rgb(255, 255, 255)")
        assert chromium.value(_OUTSIDE) == []
        assert chromium.value(_OVER_EACH_OTHER) == []
        assert chromium.value(_CONTRAST) > 7


# Texts of pictures that are not inside of them.
_OUTSIDE = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const out = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < out.left - 1 || box.right > out.right + 1
      || box.top < out.top - 1 || box.bottom > out.bottom + 1;
  }).map(text => text.textContent);
})
"""
_OVER_EACH_OTHER = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')]
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([_, b]) =>
    a.left + 1 < b.right && b.left + 1 < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom
  ).map(([other]) => [one, other]));
})
"""
# Of text on its ground, as WCAG 2 counts it.
_CONTRAST = """
(() => {
  const light = color => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(document.body);
  const [a, b] = [light(style.color), light(style.backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()
"""
