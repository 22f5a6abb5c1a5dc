"""The site builds without a warning, reads offline, and holds the whole library."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import make_diagrams
import pytest
from conftest import REPOSITORY

from hdnet_lib import create_model
from hdnet_lib.model.architecture import layer_table

DOCS = REPOSITORY / "docs"


class Page(HTMLParser):
    """Addresses that a page links, those that it loads, and the names within it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loaded, self.names = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loaded.append(given.get("href", ""))
        elif given.get("src"):
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-c", str(DOCS), str(REPOSITORY), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_every_link_within_the_site_arrives_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 100
    wrong = []
    for path, page in pages.items():
        for address in page.loaded:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                wrong.append((path.name, "loads", address))
        for address in page.links:
            link = urlsplit(address)
            if link.scheme in ("http", "https"):
                if not re.fullmatch(r"[\w.-]+\.[a-z]+", link.netloc):
                    wrong.append((path.name, "is no address", address))
                continue
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            if not target.exists() or (link.fragment and target in pages and link.fragment not in pages[target].names):
                wrong.append((path.name, "links", address))
    assert wrong == []


@pytest.mark.slow
def test_pages_hold_formulas_figures_and_sources(site):
    notebook = (site / "notebooks" / "02_local_dynamic.html").read_text()
    assert "<math" in notebook and notebook.count("<img") > 4 and "MathJax" not in notebook
    assert (site / "index.html").is_file()  # it leads on
    reference = (site / "docs" / "reference" / "model.html").read_text()
    assert 'href="../../_modules/hdnet_lib/model/local_dynamic.html#' in reference


def test_the_reference_names_every_module():
    listed = set(re.findall(r"automodule:: (\S+)", "".join(page.read_text() for page in DOCS.glob("reference/*.md"))))
    library = REPOSITORY / "hdnet_lib"
    modules = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in library.rglob("*.py")}
    assert listed == {name for name in modules if not name.endswith(("__init__", ".cli", ".version"))}


def test_the_readmes_results_are_those_of_the_model_card():
    card = (REPOSITORY / "hdnet_lib" / "weights" / "MODEL_CARD.md").read_text()
    gains, twelve, triplets = (
        {row[0]: row[1:] for row in rows(card, heading)}
        for heading in ("| gain in PSNR", "| | exact |", "Real triplets:\n\n|")
    )
    readme = (REPOSITORY / "README.md").read_text()
    for name, mini, webcam, photos in rows(readme, "| | mini test list"):
        name = re.match(r"`?([\w-]+)", name)[1].lower()
        snapped = [f" ({table[f'{name}+snap'][-1]})" if f"{name}+snap" in table else "" for table in (triplets, twelve)]
        assert [mini, webcam, photos] == [
            gains[name][0],
            gains[name][1] + snapped[0],
            gains[name][2] + snapped[1],
        ]


def rows(markdown: str, heading: str) -> list[list[str]]:
    """The cells of the first table at or after a heading."""
    table = re.search(r"(?:^\|.*\n)+", markdown[markdown.index(heading) :], re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_diagrams_are_those_of_their_script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_diagrams.py", str(tmp_path)])
    assert make_diagrams.main() == 0
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    images = REPOSITORY / "notebooks" / "images"
    assert drawn == {path.name: path.read_text() for path in images.iterdir()}
    assert {f"{name}.svg" for name in make_diagrams.DIAGRAMS} == drawn.keys()
    shown = "".join(path.read_text() for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
    assert all(f"](images/{name})" in shown for name in drawn)
    stages = set(layer_table(create_model("hdnet")).index) - {"local_dynamic"}
    assert all(f">{stage}" in drawn["hdnet.svg"] for stage in stages)
