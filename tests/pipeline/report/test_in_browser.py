"""Opens the page in a real Chromium: from disk, on all screens, light and dark."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from avsnn.pipeline.evaluation.comparison import compare
from avsnn.pipeline.report.page import write_report
from tests.pipeline.report.records import CLASSES, results

HOSTILE = "</script><img src=x onerror=alert(1)>"
HOSTILE_CLASSES = [
    *(HOSTILE, '"+alert(2)+"', "'];alert(3)//", "${alert(4)}", "犬\u2028", 'a,b\n"c"'),
]

# An image that needs the network, if anything escapes from its text.
NETWORK = "<img src=https://example.org/x.png>"

# Names of the charts that drew no mark, and of the charts that are wider than their place.
WITHOUT_MARKS = """[...document.querySelectorAll("[data-chart]")]
  .filter((place) => !place.querySelector("svg [class*=mark-] path"))
  .map((place) => place.dataset.chart)"""
CUT_OFF = """[...document.querySelectorAll("[data-chart]")]
  .filter((place) => place.querySelector("svg").getBoundingClientRect().right
    > place.getBoundingClientRect().right + 1)
  .map((place) => place.dataset.chart)"""

# Names in legends that lie outside their drawing or outside the place of their chart.
OUTSIDE = """([box, text]) => text.left < box.left - 1 || text.right > box.right + 1
  || text.top < box.top - 1 || text.bottom > box.bottom + 1"""
CUT_LEGENDS = f"""[...document.querySelectorAll("[data-chart]")].flatMap((place) => {{
  const outside = {OUTSIDE};
  const boxes = [place, place.querySelector("svg")].map((one) => one.getBoundingClientRect());
  return [...place.querySelectorAll(".role-legend text")]
    .filter((text) => boxes.some((box) => outside([box, text.getBoundingClientRect()])))
    .map((text) => `${{place.dataset.chart}}: ${{text.textContent}}`);
}})"""
# The same for the text of a saved drawing, which a browser shows alone.
CUT_IN_FILE = f"""(() => {{
  const outside = {OUTSIDE};
  const svg = document.querySelector("svg");
  const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name)));
  const box = {{ left: 0, top: 0, right: width, bottom: height }};
  return [...svg.querySelectorAll(".role-legend text")]
    .filter((text) => outside([box, text.getBoundingClientRect()]))
    .map((text) => text.textContent);
}})()"""


class Opened(NamedTuple):
    """A page in a browser, and what the page said and asked for."""

    page: Page
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of a single run, one of three runs, and one of a run with hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    three = [
        results("s-cmrl"),
        results("add", method="add", accuracy=0.78, seed=1),
        results("audio", method="audio", accuracy=0.5, caveats=["The training is not finished."]),
    ]
    hostile = results(
        HOSTILE.replace("/", "\\"),
        classes=HOSTILE_CLASSES,
        caveats=[HOSTILE, NETWORK],
        damage=NETWORK,
    )
    many = results(method="cmci", classes=[f"class number {n}" for n in range(60)], clips=600)
    # Few classes and clips have every kind of table and chart, in little time.
    small = results(classes=CLASSES[:3], clips=24, epochs=3)
    made = {"one": [results()], "three": three, "hostile": [hostile, hostile], "many": [many]}
    made["small"] = [small]
    long = ("demo-add-seed42-17a3bc0f99", "demo-add-seed42-2288aabbcc")
    made["long"] = [results(name, method="add") for name in long]
    made["perfect"] = [results(accuracy=1.0)]
    paths = {}
    for name, runs in made.items():
        comparison = compare(runs) if len(runs) > 1 else None
        paths[name] = folder / f"{name}.html"
        assert write_report(runs, comparison, paths[name]) == paths[name]
    return paths


@pytest.fixture(scope="module")
def wide(browser: Browser, pages: dict[str, Path]) -> Page:
    """The page of a single run on a wide screen; tests must only read the page."""
    return open_page(browser, pages["one"], width=1600, scheme="light").page


def open_page(browser: Browser, path: Path, *, width: int, scheme: str) -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    opened = Opened(context.new_page(), [], [])
    page = opened.page
    page.on("console", lambda message: opened.complaints.append(message.text))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (opened.complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(path.as_uri())
    unfold(page)
    return opened


def unfold(page: Page) -> None:
    """Unfold everything, and wait until every chart is drawn."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    undrawn = "[...document.querySelectorAll('[data-chart]')].every((c) => c.querySelector('svg'))"
    page.wait_for_function(undrawn)


def settle(page: Page) -> None:
    """Wait until the browser has laid out the page and drawn two frames."""
    page.evaluate(
        "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(1))))"
    )


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("one", 390, "light"),
        ("three", 390, "dark"),
        ("many", 390, "light"),
        ("three", 768, "light"),
        ("one", 768, "dark"),
        ("three", 1600, "light"),
        ("many", 1600, "dark"),
        ("perfect", 768, "light"),
    ],
)
def test_page_fits_its_screen_is_quiet_and_complete(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page, complaints, requests = open_page(browser, pages[name], width=width, scheme=scheme)
    assert complaints == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    assert len([url for url in requests if url.startswith("file:")]) == 1
    wide = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide[0] <= wide[1]
    assert page.locator("[data-chart]").count() >= 15
    assert page.evaluate(WITHOUT_MARKS) == []
    assert page.evaluate(CUT_OFF) == []
    page.context.close()


@pytest.mark.parametrize("name", ["one", "three"])
def test_legends_are_whole_at_every_width_and_after_a_change_of_the_width(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    page, _, _ = open_page(browser, pages[name], width=1300, scheme="light")
    found = {1300: page.evaluate(CUT_LEGENDS)}
    page.context.close()
    page, _, _ = open_page(browser, pages[name], width=768, scheme="light")
    found[768] = page.evaluate(CUT_LEGENDS)
    page.context.close()
    page, _, _ = open_page(browser, pages[name], width=1024, scheme="light")
    found[1024] = page.evaluate(CUT_LEGENDS)
    for width in (390, 1300):
        page.set_viewport_size({"width": width, "height": 900})
        settle(page)
        found[-width] = page.evaluate(CUT_LEGENDS)
    assert found == {width: [] for width in (1300, 768, 1024, -390, -1300)}
    page.context.close()


def test_a_phone_shows_the_ends_of_axes_the_figures_of_energy_and_all_classes(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page, _, _ = open_page(browser, pages["one"], width=390, scheme="light")

    def shown(name: str, marks: str) -> list[str]:
        texts: list[str] = page.evaluate(
            """(texts) => [...document.querySelectorAll(texts)]
              .filter((one) => getComputedStyle(one).opacity !== "0")
              .map((one) => one.textContent)""",
            f"[data-chart={name}] svg {marks} text",
        )
        return texts

    for name in ("accuracy", "calibration", "contribution", "classes"):
        ticks = shown(name, ".role-axis-label")
        assert {"0%", "50%", "100%"} <= set(ticks), name
    assert sorted(shown("confusion-1", ".role-axis-label")) == sorted(CLASSES * 2)
    right = """[...document.querySelectorAll("[data-chart=energy] svg .mark-text.role-mark text")]
      .map((text) => text.closest("svg").getBoundingClientRect().right
        - text.getBoundingClientRect().right)"""
    assert min(page.evaluate(right)) >= 0
    page.context.close()


def test_an_axis_of_epochs_has_each_epoch_once(browser: Browser, pages: dict[str, Path]) -> None:
    page = open_page(browser, pages["small"], width=1600, scheme="light").page
    labels = page.locator("[data-chart='curve-loss'] .role-axis-label text").all_text_contents()
    assert [label for label in labels if "." not in label] == ["1", "2", "3"]


@pytest.mark.parametrize("width", [390, 1024])
def test_long_names_of_runs_are_whole_in_legends(
    browser: Browser, pages: dict[str, Path], width: int
) -> None:
    page, _, _ = open_page(browser, pages["long"], width=width, scheme="light")
    assert page.evaluate(CUT_LEGENDS) == []
    for name in ("curve-loss", "curve-accuracy", "noise-audio"):
        texts = page.locator(f"[data-chart={name}] .role-legend text").all_text_contents()
        assert len(set(texts)) == len(texts) >= 2
        assert not [text for text in texts if text.endswith("\N{HORIZONTAL ELLIPSIS}")]
    page.context.close()


def test_a_saved_chart_holds_all_names_of_its_legend(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    page, _, _ = open_page(browser, pages["three"], width=1024, scheme="light")
    names = ("accuracy", "calibration", "classes", "noise-visual", "curve-loss", "rates-1")
    found, texts = {}, 0
    for name in names:
        with page.expect_download() as saved:
            page.click(f"[data-svg={name}]")
        path = tmp_path / f"{name}.svg"
        saved.value.save_as(path)
        alone = page.context.new_page()
        alone.goto(path.as_uri())
        found[name] = alone.evaluate(CUT_IN_FILE)
        texts += alone.locator(".role-legend text").count()
        alone.close()
    assert found == {name: [] for name in names}
    assert texts >= 3 * len(names)
    page.context.close()


# The dark page differs from the light page in its colours alone.
@pytest.mark.parametrize(
    ("scheme", "options"),
    [("light", {}), ("dark", {"runOnly": ["color-contrast"]})],
)
def test_page_has_no_serious_fault_of_accessibility(
    browser: Browser, pages: dict[str, Path], scheme: str, options: dict[str, list[str]]
) -> None:
    page, _, _ = open_page(browser, pages["small"], width=390, scheme=scheme)
    found = Axe().run(page, options={"resultTypes": ["violations"], **options})
    found = found.response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    page.context.close()


def test_page_says_first_how_good_how_sure_against_what_and_at_what_energy(wide: Page) -> None:
    summary = wide.locator("section.answers")
    assert summary.bounding_box()["y"] < 300  # type: ignore[index]
    found = results().evaluation
    text = summary.inner_text()
    for figure in (found.top1, found.top1_interval.low, found.top1_interval.high, found.chance):
        assert f"{100 * figure:.1f} %" in text
    assert re.search(r"\d µJ", text)


def test_caveats_of_a_run_stand_at_the_top_with_the_name_of_the_run(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page, _, _ = open_page(browser, pages["three"], width=1600, scheme="light")
    caveats = page.locator("aside.caveats")
    assert caveats.is_visible()
    assert "audio: The training is not finished." in caveats.inner_text()
    first_section = page.locator("section[id]").first.bounding_box()
    assert caveats.bounding_box()["y"] < first_section["y"]  # type: ignore[index]
    page.context.close()


def test_tables_and_charts_are_saved_as_files(browser: Browser, pages: dict[str, Path]) -> None:
    page, complaints, _ = open_page(browser, pages["three"], width=1600, scheme="dark")
    with page.expect_download() as saved:
        page.click("[data-csv=noise-visual]")
    assert saved.value.suggested_filename == "noise-visual.csv"
    rows = list(csv.DictReader(io.StringIO(saved.value.path().read_text())))
    robustness = results("s-cmrl").robustness
    assert robustness is not None
    found = {(row["run"], row["snr"]): row for row in rows}
    assert {run for run, _ in found} == {"s-cmrl", "add"}
    for point in robustness.curves[1].points:
        row = found["s-cmrl", "clean" if point.snr is None else f"{point.snr:g}"]
        assert [float(row[key]) for key in ("top1", "low", "high")] == list(
            point.top1.model_dump().values()
        )
    for name in ("confusion-1", "network-1"):
        with page.expect_download() as saved:
            page.click(f"[data-svg={name}]")
        drawing = saved.value.path().read_text()
        assert drawing.startswith("<svg")
        assert "<text" in drawing
        # A file has no style sheet, and is as on white paper also if the page is dark.
        assert "var(" not in drawing
        assert '<rect width="100%" height="100%" fill="#ffffff"' in drawing
    assert complaints == []
    page.context.close()


def test_every_table_has_a_download(wide: Page) -> None:
    named = wide.evaluate("[...document.querySelectorAll('.card')].map((card) => card.id)")
    assert len(named) > 20
    tables = {name: wide.locator(f"#{name} table").count() for name in named}
    for name in named:
        assert wide.locator(f"#{name} [data-csv]").count() == 1
    # A layer without a spike has no rows to show.
    assert [name for name, count in tables.items() if count != 1] == ["raster-1-2"]


def test_hostile_names_stay_text_in_page_charts_and_files(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page, complaints, requests = open_page(browser, pages["hostile"], width=1600, scheme="light")
    assert complaints == []
    assert len([url for url in requests if not url.startswith(("data:", "blob:"))]) == 1
    assert page.locator("img[src=x], img[src^=http]").count() == 0
    assert HOSTILE in page.locator("#classes").inner_text()
    # The pointer shows names too.
    page.locator("#classes .plot svg .mark-symbol path").first.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert page.locator("#vg-tooltip-element img").count() == 0
    with page.expect_download() as saved:
        page.click("[data-csv=classes]")
    text = saved.value.path().read_text()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {row["name"] for row in rows} == set(HOSTILE_CLASSES)
    assert complaints == []
    page.context.close()


def test_printed_page_is_light_and_has_no_buttons(browser: Browser, pages: dict[str, Path]) -> None:
    page, _, _ = open_page(browser, pages["one"], width=1600, scheme="dark")
    page.emulate_media(media="print")
    colour = page.evaluate("getComputedStyle(document.body).color")
    assert colour == "rgb(22, 25, 29)"
    assert page.locator("button:visible").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.context.close()
