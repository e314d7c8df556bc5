"""The hook of MkDocs that gives the site its pages.

Pages of docs/ are taken as they are. This hook adds pages that lie elsewhere in the repository
(README.md and others), the notebook as a page, and reference pages, which are generated from code.
Links of a page lead to files of the repository, so that they also work where the repository is
browsed; the hook turns each link into a link of the site.
"""

import json
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

import reference_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).resolve().parents[1]

# Pages of the site by the file of the repository that holds their text.
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "speed.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "docs/ARCHITECTURE.md": "architecture.md",
    "docs/tutorial.ipynb": "tutorial.md",
}
GENERATED = {
    "api-reference.md": reference_pages.api,
    "commands.md": reference_pages.commands,
    "own-data-fields.md": reference_pages.manifest_fields,
    "settings.md": reference_pages.settings,
}

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and the files of the repository that pages link to."""
    if renamed := files.get_file_from_path("ARCHITECTURE.md"):
        files.remove(renamed)
    for source, name in PAGES.items():
        text = (PROJECT / source).read_text()
        content = notebook_page(text) if source.endswith(".ipynb") else text
        files.append(File.generated(config, name, content=content))
    for name, write in GENERATED.items():
        files.append(File.generated(config, name, content=write()))
    for file in files.documentation_pages():
        for _, target, _ in LINK.findall(without_code(file.content_string)):
            linked = repository_path(file.src_uri, target)
            if is_asset(linked) and not files.get_file_from_path(linked):
                level = InclusionLevel.NOT_IN_NAV
                path = str(PROJECT / linked)
                files.append(File.generated(config, linked, abs_src_path=path, inclusion=level))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links of the site."""

    def rewritten(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if not target or ":" in target:
            return match[0]
        linked = repository_path(page.file.src_uri, target)
        if linked in PAGES or linked.startswith("docs/"):
            return f"[{text}]({PAGES.get(linked, linked.removeprefix('docs/'))}{anchor})"
        # The site has no page for a folder.
        return text if (PROJECT / linked).is_dir() else f"[{text}]({linked}{anchor})"

    if page.file.src_uri in GENERATED:
        return markdown
    parts = FENCE.split(markdown)
    return "".join(
        part if part.lstrip().startswith("```") else LINK.sub(rewritten, part) for part in parts
    )


def without_code(markdown: str) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", markdown)


def repository_path(page: str, target: str) -> str:
    """Return the path in the repository that a link of a page leads to.

    Args:
        page: the page, as a path of the site.
        target: the link, as the page writes the link.
    """
    sources = {name: source for source, name in PAGES.items()}
    source = sources.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(target)))


def is_asset(path: str) -> bool:
    """Return whether a link leads to a file of the repository that is no page, such as a YAML."""
    return path not in PAGES and not path.startswith(("docs/", "..")) and (PROJECT / path).is_file()


def notebook_page(notebook: str) -> str:
    """Return a notebook without outputs as Markdown."""
    cells = []
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        cells.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    # The hook would turn a link in Markdown into a link to this page.
    title, rest = cells[0].split("\n", 1)
    note = "This page is a notebook: <a href='tutorial.ipynb' download>download tutorial.ipynb</a>."
    return "\n\n".join([title, note, rest, *cells[1:]])
