"""Builds the documentation as a site, and reads the site in a real Chromium, from the disk."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from playwright.sync_api import Browser, Page
from pydantic import BaseModel

from avsnn.cli.main import app
from avsnn.datasets_manifest.schema import Manifest
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.conftest import PROJECT

PAGES_OUTSIDE_DOCS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff")
READ = ("index", "commands", "settings", "api-reference", "tutorial", "speed", "architecture")


def build(project: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a single warning; tests must only read the site."""
    out = tmp_path_factory.mktemp("site") / "html"
    done = build(PROJECT, out)
    assert done.returncode == 0, done.stderr
    return out


def opened(browser: Browser, width: int, scheme: str, complaints: list[str]) -> Page:
    """Open an empty page, and list what the browser complains about or wants from a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:")) else complaints.append(request.url)
        ),
    )
    return page


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1600, "dark")])
def test_the_site_fits_its_screen_is_quiet_needs_no_network_and_is_searched_from_the_disk(
    site: Path, browser: Browser, width: int, scheme: str
) -> None:
    complaints: list[str] = []
    page = opened(browser, width, scheme, complaints)
    for name in READ:
        page.goto((site / f"{name}.html").as_uri())
        screen = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        needed, there = page.evaluate(screen)
        assert needed <= there, name
        broken = "[...document.images].filter((one) => !one.naturalWidth).map((one) => one.src)"
        assert page.evaluate(broken) == [], name
        shown = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
        assert (max(page.evaluate(shown)[:3]) < 100) == (scheme == "dark"), name
    if width < 1000:
        page.locator("label.md-header__button[for=__search]").click()
    words = page.locator("input.md-search__input")
    words.click()
    words.press_sequentially("spike")
    found = page.locator(".md-search-result__item a")
    found.first.wait_for()
    assert "spike" in page.locator(".md-search-result__list").inner_text().lower()
    found.first.click()
    page.wait_for_url(re.compile(r"\.html\?h="))
    assert complaints == []
    page.context.close()


def keys(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the key of every setting of a class and of the groups in the class."""
    for name, info in settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from keys(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_site_names_every_command_setting_and_field(site: Path) -> None:
    commands = (site / "commands.html").read_text()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f'id="avsnn-{name}"' in commands
    settings = (site / "settings.html").read_text()
    for key in (*keys(TrainSettings), *keys(PrepareSettings)):
        assert f'<code id="{key}">' in settings
    assert "no gradient through time" in settings
    fields = (site / "own-data-fields.html").read_text().replace("<wbr>", "")
    for name in Manifest.model_fields:
        assert f"<code>{name}</code>" in fields
    assert 'id="avsnn.models.fusion.Fusion.forward"' in (site / "api-reference.html").read_text()
    assert "runs/s-cmrl" in (site / "tutorial.html").read_text()
    # A link to a file that is no page leads to a copy of the file.
    assert (site / "avsnn/datasets_manifest/nmnist-shd.yaml").is_file()


def test_links_that_lead_nowhere_fail_the_build(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "avsnn", "benchmarks", *PAGES_OUTSIDE_DOCS):
        (tmp_path / name).symlink_to(PROJECT / name)
    shutil.copytree(PROJECT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "train.md").open("a") as page:
        page.write("\n[x](nofile.md) [x](methods.md#noheading)\n")
    done = build(tmp_path, tmp_path / "html")
    assert done.returncode == 1
    assert "nofile.md" in done.stderr
    assert "noheading" in done.stderr
