"""The widgets in a real browser, against a running JupyterLab; the report's pages with the network off.

Runs where Chromium is installed (``make test-browser`` insists on it). Screenshots are kept in ``reports/screenshots``.
"""

import base64
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing

import nbformat
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from hdnet_lib.course import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None and not os.environ.get("NEED_BROWSER"):
    pytest.skip("Chromium is not installed, so no widget is driven in a browser", allow_module_level=True)

from playwright.sync_api import expect, sync_playwright  # noqa: E402 (its driver takes a second to load)

pytestmark = pytest.mark.slow
SCREENSHOTS = REPOSITORY / "reports" / "screenshots"
PATIENCE = 90_000
"""Milliseconds that a step may take: a kernel that imports PyTorch on a busy machine is slow."""
SETUP = """
from hdnet_lib.course.plots import use_style
from hdnet_lib.data import list_triplets
from hdnet_lib.inference.load import load_model
use_style()
model = load_model("hdnet-lite")
triplets = {t.mask.stem: t for t in list_triplets("mini", "test")}
images = triplets["coffee_1"].read(256)
"""


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "Chromium is not installed: on Debian and Ubuntu, apt install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own, with its folder: (address, folder)."""
    folder = tmp_path_factory.mktemp("lab")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        *shlex.split(re.search(r"^LARGE_PHOTOS := (.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[1]),
    ]  # fmt: skip
    news = folder / ".settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    # Settings and workspaces of the user stay out of it.
    own = {"JUPYTER_CONFIG_DIR": ".config", "JUPYTERLAB_SETTINGS_DIR": ".settings", "HOME": ""}
    environment = os.environ | {name: str(folder / part) for name, part in own.items()}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1)
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", folder
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)


@pytest.fixture
def opened(browser, lab):
    """Opens a notebook of one cell in JupyterLab and runs it; gives the page."""
    address, folder = lab
    pages = []

    def run(name, code):
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cell = nbformat.v4.new_code_cell(SETUP + code)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), folder / f"{name}.ipynb")
        page = browser.new_page(viewport={"width": 1300, "height": 1100})
        page.set_default_timeout(PATIENCE)
        pages.append(page)
        page.goto(f"{address}/doc/tree/{name}.ipynb")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").first.wait_for()
        prompt = page.locator(".jp-InputPrompt").first
        for _ in range(30):  # until the page is connected with the kernel, it takes no command
            page.locator(".jp-Cell .cm-content").first.click()
            page.keyboard.press("Control+Enter")
            page.wait_for_timeout(1000)
            if prompt.inner_text() != "[ ]:":
                break
        page.locator(
            "canvas.hdnet-picture, .jp-OutputArea .widget-image, .jp-OutputArea img[alt=before]"
        ).first.wait_for(state="attached")
        return page

    yield run
    for page in pages:
        page.close()


def shot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def pixels(locator):
    """What a canvas shows, (H, W, 3)."""
    data = locator.evaluate("canvas => canvas.toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def choose_file(page, button, path):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files(path)


def drag(page, canvas, *points):
    """Press at the first point of a canvas (in shares of its sides), move over the others, release."""
    box = canvas.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def test_neighbour_explorer(opened):
    page = opened(
        "explorer",
        "from hdnet_lib.course.widgets import explore_neighbors\n"
        "explore_neighbors(model, images.composite, images.mask, 3)",
    )
    canvas = page.locator("canvas.hdnet-picture")
    said = page.locator(".widget-html-content").last
    expect(said).to_contain_text("cosine with the nearest", timeout=PATIENCE)
    first = said.inner_text()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.22, "y": box["height"] * 0.35})
    expect(said).not_to_have_text(first)
    second = said.inner_text()
    assert len(second.split("nearest: ")[1].split(", ")) == 3
    shot(page, "explorer_click")
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    expect(said).not_to_have_text(second)
    assert len(said.inner_text().split("nearest: ")[1].split(", ")) == 4
    page.get_by_role("button", name="dot product").click()
    expect(said).to_contain_text("dot product with the nearest")
    canvas.click(position={"x": box["width"] * 0.03, "y": box["height"] * 0.2})
    expect(said).to_contain_text("That is background")
    shot(page, "explorer_dot_product")


def test_before_and_after(opened):
    """As in a notebook, and the same markup needs no kernel."""
    page = opened(
        "compare",
        "from IPython.display import HTML\nfrom hdnet_lib.course.widgets import before_after\n"
        "HTML(before_after(images.composite, images.real))",
    )
    pictures = page.locator("div:has(> img[alt=before])")
    line = page.get_by_label("line between before and after")
    seen = {}
    for value in ("50", "0", "100"):
        line.evaluate("(line, value) => { line.value = value; line.dispatchEvent(new Event('input')); }", value)
        seen[value] = np.asarray(Image.open(io.BytesIO(pictures.screenshot())).convert("RGB"))
    shot(page, "before_after")
    third = seen["0"].shape[1] // 3
    assert (seen["0"][:, 5:third] != seen["50"][:, 5:third]).any()
    assert (seen["0"][:, -third:-5] == seen["50"][:, -third:-5]).all()
    assert (seen["100"][:, 5:third] == seen["50"][:, 5:third]).all()
    assert (seen["100"][:, -third:-5] != seen["50"][:, -third:-5]).any()


def test_your_photo(opened, lab, mini, tmp_path):
    page = opened("own", "from hdnet_lib.course.widgets import HarmonizeYourPhoto\nHarmonizeYourPhoto(model)")
    _, folder = lab
    photo = next((mini / "Change" / "composite_images").glob("coffee_1_*"))
    said = page.locator(".widget-html-content").first
    choose_file(page, "1. photo", photo)
    expect(said).to_contain_text("Now paint the pasted object")
    canvas = page.locator("canvas.hdnet-picture").first
    width, height = Image.open(photo).size
    page.wait_for_function(f"document.querySelector('canvas.hdnet-picture').width === {min(width, 640)}")
    untouched = pixels(canvas)
    drag(page, canvas, (0.45, 0.2), (0.55, 0.3), (0.45, 0.4))
    brushed = pixels(canvas)
    assert (brushed != untouched).any()
    page.get_by_role("button", name="undo").click()
    page.wait_for_timeout(500)
    assert (pixels(canvas) == untouched).all()
    page.get_by_role("button", name="polygon").click()
    page.wait_for_timeout(500)
    box = canvas.bounding_box()
    for x, y in ((0.35, 0.1), (0.65, 0.1), (0.65, 0.6), (0.9, 0.9)):
        canvas.click(position={"x": x * box["width"], "y": y * box["height"]})
    page.get_by_role("button", name="3. harmonise").click()
    expect(said).to_contain_text("The polygon is not closed")
    shot(page, "own_open_polygon")
    page.get_by_role("button", name="undo").click()  # the last corner alone
    for x, y in ((0.35, 0.6), (0.35, 0.1)):
        canvas.click(position={"x": x * box["width"], "y": y * box["height"]})
    shot(page, "own_polygon")
    page.get_by_role("button", name="3. harmonise").click()
    expect(said).to_contain_text("Harmonised.")
    page.get_by_label("line between before and after").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    shot(page, "own_result")
    page.get_by_role("button", name="4. save").click()
    expect(said).to_contain_text("Saved as")
    result, before = (np.asarray(Image.open(file)).astype(int) for file in (folder / "harmonised.png", photo))
    changed = (result != before).any(axis=-1)
    assert changed[int(height * 0.15) : int(height * 0.55), int(width * 0.4) : int(width * 0.6)].mean() > 0.8
    assert not changed[:, : int(width * 0.33)].any()
    # And a photo of more than JupyterLab's own 10 MB, with a mask from a file.
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    Image.fromarray(np.pad(np.full((500, 500), 255, np.uint8), 750)).save(tmp_path / "mask.png")
    assert (tmp_path / "large.png").stat().st_size > 11e6
    choose_file(page, "1. photo", tmp_path / "large.png")
    expect(said).to_contain_text("Now paint the pasted object")
    choose_file(page, "2. mask", tmp_path / "mask.png")
    expect(said).to_contain_text("The uploaded mask is shown in yellow")
    shot(page, "own_mask")
    page.get_by_role("button", name="3. harmonise").click()
    expect(said).to_contain_text("Harmonised.")


def test_kernels_and_ratios(opened):
    page = opened(
        "browsers",
        "from IPython.display import display\n"
        "from hdnet_lib.evaluation.examples import open_examples\n"
        "from hdnet_lib.evaluation.methods import BASELINES, COMPOSITE\n"
        "from hdnet_lib.evaluation.scoring import score_methods\n"
        "from hdnet_lib.evaluation.summary import choose_protocol\n"
        "from hdnet_lib.course.widgets import browse_by_ratio, browse_kernels\n"
        "display(browse_kernels(model, {'one': images, 'two': triplets['china_1'].read(256)}))\n"
        "examples = open_examples('mini', 'test', 64, False, 12)\n"
        "methods = {COMPOSITE: BASELINES['composite'], 'reinhard': BASELINES['reinhard']}\n"
        "table = choose_protocol(score_methods(examples, methods, ['hdnet']), 'hdnet')\n"
        "browse_by_ratio(table, examples, 'reinhard', methods['reinhard'])",
    )
    said = page.locator(".widget-html-content")
    expect(said.last).to_contain_text("fMSE")
    kernels = said.first.inner_text()
    page.locator(".widget-dropdown select").first.select_option("two")
    expect(said.first).not_to_have_text(kernels)
    shot(page, "kernels")
    worst = said.last.inner_text()
    page.get_by_role("slider").last.focus()
    page.keyboard.press("ArrowRight")
    expect(said.last).not_to_have_text(worst)
    page.get_by_role("button", name="0-5 %").click()
    expect(said.last).to_contain_text("% foreground")
    page.get_by_role("button", name="0-5 %").scroll_into_view_if_needed()
    shot(page, "ratios")


def test_report_pages_ask_for_nothing(browser, tmp_path):
    """Every committed notebook as a page: shown with the network off, no request but for the page itself."""
    context = browser.new_context(offline=True)
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    entries = []
    for path in sorted(report.NOTEBOOKS.glob("[0-9]*.ipynb")):
        shutil.copy(path, tmp_path)
        entries.append(report.finish(path, tmp_path / path.name, None, 1.0))
    report.write_index(tmp_path, entries, "ci")
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    shot(page, "report_index")
    assert page.locator("img").count() == len(entries)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    names = [entry["name"] for entry in entries]
    assert [link.get_attribute("href") for link in page.locator("h2 a").all()] == [f"{name}.html" for name in names]
    for name in names:
        page.goto((tmp_path / f"{name}.html").as_uri())
        assert page.locator("h1").first.inner_text().startswith(name[:2])
        assert "$$" not in page.inner_text("body")
    formulas = page.goto((tmp_path / "02_local_dynamic.html").as_uri()) and page.locator("math")
    assert formulas.count() >= 5
    assert formulas.first.bounding_box()["width"] > 0
    hosts = {url.split(":")[0] for url in asked}
    assert hosts <= {"file", "data", "blob"}, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    context.close()
