"""Widgets without a browser: what they show, and what they say. test_browser.py drives them in a real one."""

import base64
import io
import re
from datetime import UTC, datetime

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from hdnet_lib import harmonize, load_pretrained
from hdnet_lib.course.widgets import (
    HarmonizeYourPhoto,
    Picture,
    as_png,
    before_after,
    browse_by_ratio,
    browse_kernels,
    draw_shapes,
    explore_neighbors,
)
from hdnet_lib.data import list_triplets
from hdnet_lib.data.samples import to_batch
from hdnet_lib.evaluation.examples import open_examples
from hdnet_lib.evaluation.methods import COMPOSITE
from hdnet_lib.evaluation.scoring import score_methods
from hdnet_lib.evaluation.summary import choose_protocol


def find(widget, kind, **traits):
    """The widgets of one class inside another, whose traits have these values."""
    found = [] if not isinstance(widget, kind) else [widget]
    for child in getattr(widget, "children", ()):
        found += find(child, kind, **traits)
    return [w for w in found if all(getattr(w, name) == value for name, value in traits.items())]


def named(widget, name):
    return next(w for w in every(widget) if getattr(w, "description", None) == name)


def every(widget):
    return [widget, *(inner for child in getattr(widget, "children", ()) for inner in every(child))]


def text(widget):
    return next(w for w in every(widget) if type(w).__name__ == "HTML").value


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.fixture
def images(mini):
    return next(t for t in list_triplets(mini, "test") if t.mask.stem == "coffee_1").read(64)


def test_shapes_are_filled():
    square = {"kind": "polygon", "points": [[10, 10], [30, 10], [30, 30], [10, 30]], "size": 5}
    mask = np.asarray(draw_shapes([square], Image.new("L", (40, 40))))
    assert mask[10:31, 10:31].min() == 255
    assert (mask > 0).sum() == 21 * 21
    dot = {"kind": "brush", "points": [[20, 20]], "size": 10}
    round_dot = np.asarray(draw_shapes([dot], Image.new("L", (40, 40)))) > 0
    assert np.pi * 5**2 <= round_dot.sum() <= np.pi * 5.6**2  # Pillow draws both ends of a side
    twice = np.asarray(draw_shapes([dot], Image.new("L", (80, 80)), scale=2)) > 0
    assert abs(twice.sum() / round_dot.sum() - 4) < 0.5
    erased = np.asarray(draw_shapes([square, dot | {"kind": "eraser"}], Image.new("L", (40, 40)))) > 0
    assert not erased[20, 20]
    assert erased[11, 11]
    stroke = {"kind": "brush", "points": [[5, 20], [35, 20]], "size": 6}
    assert (np.asarray(draw_shapes([stroke], Image.new("L", (40, 40))))[20, 3:38] == 255).all()


@pytest.mark.slow
def test_the_explorer_shows_what_ld_finds(images):
    model = load_pretrained("hdnet-lite")
    widget = explore_neighbors(model, images.composite, images.mask, 3)
    picture = find(widget, Picture)[0]
    first = picture.image
    shape = decoded(first).shape
    with torch.inference_mode():
        matches = model.inspect(*to_batch(images)[:2]).matches
    inside = ~matches.background[0].view(8, 8)
    found = set()
    for x in np.linspace(0, shape[1] / 2, 30):
        for y in np.linspace(0, shape[0], 24):
            picture.clicked = [float(x), float(y)]
            if text(widget).startswith("row"):
                found.add(tuple(int(part.split()[1]) for part in text(widget).split(";")[0].split(", ")))
    assert found == {tuple(position) for position in inside.nonzero().tolist()}
    best = matches.similarity[0].masked_fill(~matches.background[0], -2).max(dim=1).values.view(8, 8)
    last = tuple(int(part.split()[1]) for part in text_of_position(widget).split(", "))
    assert f"nearest: {best[last]:.3f}" in text(widget)
    named(widget, "K").value = 5
    assert text(widget).count("0.") + text(widget).count("1.0") >= 5
    find_toggle(widget).value = "dot product"
    assert "dot product with the nearest" in text(widget)
    assert picture.image != first


def find_toggle(widget):
    return next(w for w in every(widget) if type(w).__name__ == "ToggleButtons")


def compared(widget):
    """The places where before and after are shown."""
    return [w for w in every(widget) if "line between before and after" in str(getattr(w, "value", ""))]


def text_of_position(widget):
    """Clicks on the background leave the last position; the text says so."""
    if not text(widget).startswith("row"):
        named(widget, "K").value += 1
        named(widget, "K").value -= 1
    return text(widget).split(";")[0]


def test_a_click_on_the_background_is_told(images):
    widget = explore_neighbors(load_pretrained("hdnet-lite"), images.composite, images.mask)
    picture = find(widget, Picture)[0]
    height, width, _ = decoded(picture.image).shape
    before = picture.image
    said = set()
    for x in np.linspace(0, width / 2, 50):
        picture.clicked = [float(x), height * 0.2]
        said.add(text(widget).split(" ")[0])
        if text(widget) == "That is background: click inside the yellow line.":
            break
    assert said == {"row", "That"}
    assert picture.image == before


def test_an_object_too_small_for_the_features_is_refused(images):
    mask = np.zeros_like(images.mask)
    mask[1, 1] = True
    with pytest.raises(ValueError, match=r"the object is too small: it fills none of the 8 x 8 positions"):
        explore_neighbors(load_pretrained("hdnet-lite"), images.composite, mask)


def markup(images):
    return before_after(images.composite, images.real)


def test_before_and_after_are_both_there(images):
    after, before = (decoded(base64.b64decode(data)) for data in re.findall(r"base64,([^\"]+)", markup(images)))
    for shown, image in ((before, images.composite), (after, images.real)):
        assert shown.shape == image.shape
        assert np.abs(shown.astype(int) - image).mean() < 4  # WebP is lossy
    assert np.abs(before.astype(int) - after).mean() > 4
    assert "<script" not in markup(images) and "http" not in markup(images)
    wide = Image.new("RGB", (20_000, 10))  # wider than WebP can be
    assert "max-width: 640px" in before_after(wide, wide)
    assert wide.width == 20_000


@pytest.mark.slow
def test_kernels_of_each_image_and_stage(images, mini):
    other = list_triplets(mini, "test")[0].read(64)
    widget = browse_kernels(load_pretrained("hdnet-lite"), {"one": images, "other": other})
    seen = set()
    for name in ("one", "other"):
        named(widget, "image").value = name
        for stage in ("4", "5", "6"):
            named(widget, "MGD after").value = stage
            seen.add(text(widget))
    assert len(seen) == 6
    assert all(line.startswith("steering scalars: 0.") for line in seen)


def test_composites_by_ratio_come_worst_first(mini):
    examples = open_examples(mini, "test", 64, False, 12)
    methods = {COMPOSITE: lambda cases: [case.composite for case in cases], "half": halfway}
    table = choose_protocol(score_methods(examples, methods, ["hdnet"]), "hdnet")
    widget = browse_by_ratio(table, examples, "half", methods["half"])
    own = table[table.method == "half"].sort_values("fmse", ascending=False)
    assert text(widget).startswith(own.name.iloc[0])
    named(widget, "worst first").value = len(own)
    assert text(widget).startswith(own.name.iloc[-1])
    small = own[own.ratio < 0.05]
    find_toggle(widget).value = "0-5 %"
    assert named(widget, "worst first").max == len(small)
    assert text(widget).startswith(small.name.iloc[0])
    none = browse_by_ratio(table[table.ratio < 0.05], examples, "half", methods["half"])
    find_toggle(none).value = "15-100 %"
    assert text(none) == "no composite of this size"


def halfway(cases):
    return [(case.composite.astype(float) + case.real) / 2 for case in cases]


def upload(widget, name, content):
    file = {"name": name, "type": "image/png", "size": len(content), "content": content}
    widget.value = (file | {"last_modified": datetime.now(UTC)},)


@pytest.mark.slow
def test_your_photo_from_upload_to_file(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = load_pretrained("hdnet-lite")
    widget = HarmonizeYourPhoto(model)
    picture = find(widget, Picture)[0]
    run, save, undo, clear = (named(widget, name) for name in ("3. harmonise", "4. save", "undo", "clear"))
    run.click()
    assert text(widget) == "Upload a photo first."
    save.click()
    assert text(widget) == "Harmonise first."
    upload(named(widget, "1. photo"), "notes.png", b"no image")
    assert text(widget) == "notes.png is not an image that Pillow can read."
    upload(named(widget, "1. photo"), "cut.png", as_png(images.composite)[:3000])
    assert text(widget).startswith("cut.png is damaged, incomplete")

    large = Image.fromarray(images.composite).resize((1280, 1280))
    upload(named(widget, "1. photo"), "photo.png", as_png(large))
    assert decoded(picture.image).shape == (640, 640, 3)
    run.click()
    assert text(widget) == "Paint the object, or upload its mask."
    upload(named(widget, "2. mask"), "mask.png", as_png(Image.fromarray(images.mask)))
    assert text(widget) == "The mask is 64x64 pixels, the photo 1280x1280."
    assert named(widget, "2. mask").value == ()
    picture.corners = [[200, 200], [400, 200]]
    run.click()
    assert text(widget).startswith("The polygon is not closed")
    undo.click()
    assert picture.corners == [[200, 200]]
    picture.corners = []

    square = {"kind": "polygon", "points": [[200, 200], [400, 200], [400, 400], [200, 400]], "size": 24}
    picture.shapes = [square, {"kind": "brush", "points": [[10, 10]], "size": 24}]
    undo.click()
    assert picture.shapes == [square]
    run.click()
    assert text(widget).startswith("Harmonised. Move the line to compare. The yellow line")
    assert find(widget, ipywidgets.Image)
    named(widget, "snap the mask to the border of the paste").value = False
    assert text(widget) == "The mask has changed: harmonise again."
    run.click()
    assert text(widget) == "Harmonised. Move the line to compare."
    assert not find(widget, ipywidgets.Image)
    before, after = re.findall(r"base64,([^\"]+)", compared(widget)[0].value)
    assert before != after
    save.click()
    assert text(widget) == f"Saved as {tmp_path / 'harmonised.png'}."
    mask = np.zeros((1280, 1280), bool)
    mask[400:801, 400:801] = True
    assert (np.asarray(Image.open("harmonised.png")) == np.asarray(harmonize(model, large, mask, snap=False))).all()
    save.click()
    assert text(widget) == "harmonised.png exists already: choose another name."
    picture.shapes = [square, {"kind": "brush", "points": [[10, 10]], "size": 24}]
    assert text(widget) == "The mask has changed: harmonise again."
    assert not compared(widget)
    save.click()
    assert text(widget) == "Harmonise first."
    picture.shapes = [square]
    run.click()
    named(widget, "file").value = "result.gif"
    save.click()
    assert "use a file name that ends with" in text(widget)
    named(widget, "file").value = 300 * "a" + ".png"
    save.click()
    assert "cannot be written" in text(widget)

    # The mask from a file, and an eraser's stroke in it.
    clear.click()
    assert (picture.shapes, named(widget, "2. mask").value) == ([], ())
    plain = decoded(picture.image)
    upload(named(widget, "2. mask"), "mask.png", as_png(Image.fromarray(mask)))
    shown = (decoded(picture.image) != plain).any(axis=-1)
    assert shown[205:395, 205:395].mean() > 0.99  # half as large as the photo
    assert not shown[:195].any()
    picture.shapes = [{"kind": "eraser", "points": [[300, 200], [300, 400]], "size": 100}]
    run.click()
    named(widget, "file").value = "erased.png"
    save.click()
    changed = (np.asarray(Image.open("erased.png")) != np.asarray(large)).any(axis=-1)
    assert changed[420:780, 420:480].any()
    assert not changed[420:780, 520:680].any()

    # Another photo begins anew.
    upload(named(widget, "1. photo"), "<b>bad</b>.png", b"no image")
    assert text(widget) == "&lt;b&gt;bad&lt;/b&gt;.png is not an image that Pillow can read."
    assert (picture.image, picture.shapes, named(widget, "2. mask").value) == (b"", [], ())
    save.click()
    assert text(widget) == "Harmonise first."
    run.click()
    assert text(widget) == "Upload a photo first."
