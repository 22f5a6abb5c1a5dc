"""Widgets of the notebooks. Each shows what a function of this library computes; none computes anything itself."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import anywidget
import ipywidgets as ipw
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from hdnet_lib.course.plots import OUTLINE, difference, plot_kernels, plot_neighbors, plot_snapping, show_images
from hdnet_lib.data.iharmony4 import Triplets
from hdnet_lib.data.images import ImageError, Photo, read_mask, read_photo, to_signed, to_tensor
from hdnet_lib.data.samples import Sample, to_batch
from hdnet_lib.evaluation.methods import COMPOSITE, Method
from hdnet_lib.evaluation.summary import RATIO_NAMES, ratio_bins
from hdnet_lib.inference.harmonize import finish, predict, prepare
from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.hdnet import HDNet
from hdnet_lib.model.local_dynamic import LocalDynamic
from hdnet_lib.model.variants import DotProduct
from hdnet_lib.utils.files import first_line
from hdnet_lib.utils.regions import resize_mask

PREVIEW = 640
"""Longest side in pixels of a photo that is shown."""
SIMILARITIES = {"cosine": LocalDynamic, "dot product": DotProduct}
"""What LD compares by."""
ANY_RATIO = "all"


def still(**layout: str) -> ipw.Image:
    """A place for an image that keeps its own size and proportions in a box."""
    return ipw.Image(layout=ipw.Layout(align_self="flex-start", max_width="100%", **layout))


class Picture(anywidget.AnyWidget):
    """An image to click on ("click"), or to draw on ("brush", "eraser", "polygon").

    All coordinates are pixels of the image, x to the right and y down.
    """

    _esm = Path(__file__).with_name("picture.js")
    image = traitlets.Bytes().tag(sync=True)
    """PNG."""
    mode = traitlets.Enum(["click", "brush", "eraser", "polygon"], "click").tag(sync=True)
    clicked = traitlets.List().tag(sync=True)
    """(x, y) of the last click."""
    shapes = traitlets.List().tag(sync=True)
    """What was drawn, in order: dicts of kind (the mode), points, and size (the brush's width)."""
    corners = traitlets.List().tag(sync=True)
    """(x, y) of the corners of a polygon that is not closed yet."""
    size = traitlets.Int(24).tag(sync=True)
    label = traitlets.Unicode("picture").tag(sync=True)
    """For screen readers."""


def as_png(image: Image.Image | np.ndarray) -> bytes:
    """An image as the bytes of a PNG file."""
    return _encoded(image if isinstance(image, Image.Image) else Image.fromarray(image), "PNG")


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file of exactly its size; closes the figure."""
    buffer = io.BytesIO()
    figure.draw_without_rendering()  # the layout of axes of a fixed shape takes two rounds
    canvas: Any = figure.canvas
    canvas.print_png(buffer)  # savefig would cut the margins, and shift what is clicked
    plt.close(figure)
    return buffer.getvalue()


def draw_shapes(shapes: Sequence[Mapping], start: Image.Image, scale: float = 1.0) -> Image.Image:
    """A mask with what was drawn on a :class:`Picture`.

    Args:
        shapes: :attr:`Picture.shapes`.
        start: the mask before, greyscale, 255 inside; it stays as it is.
        scale: pixels of the mask for each pixel of the picture.
    """
    mask = start.copy()
    pen = ImageDraw.Draw(mask)
    for shape in shapes:
        points = [(x * scale, y * scale) for x, y in shape["points"]]
        if shape["kind"] == "polygon":
            pen.polygon(points, fill=255)
            continue
        ink, width = (0 if shape["kind"] == "eraser" else 255), shape["size"] * scale
        pen.line(points, fill=ink, width=round(width), joint="curve")
        for x, y in (points[0], points[-1]):  # Pillow's lines have no round ends
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)
    return mask


def explore_neighbors(model: HDNet, photo: np.ndarray, mask: np.ndarray, k: int = 1) -> ipw.Widget:
    """Click on the foreground: its similarity map and its K nearest neighbours.

    Args:
        model: gives the features; K and the similarity are chosen in the widget.
        photo: (H, W, 3) uint8; sides are multiples of 8.
        mask: (H, W) bool.
        k: K at the start.

    Raises:
        ValueError: the object covers no position of the feature map.
    """
    tensor = to_tensor(mask)
    with torch.inference_mode():
        feature = model.inspect(to_signed(to_tensor(photo)), tensor).features["bottleneck"]
    rows, columns = feature.shape[2:]
    if not (resize_mask(tensor, feature) > 0.5).any():
        raise ValueError(f"the object is too small: it fills none of the {rows} x {columns} positions of the features.")
    neighbors = ipw.IntSlider(k, 1, max(k, 9), description="K")
    kind = ipw.ToggleButtons(options=list(SIMILARITIES))
    picture = Picture(label="photo and similarity map: click on the foreground")
    text = ipw.HTML()
    state: dict[str, Any] = {"position": None, "axes": None}

    def show(_: object = None) -> None:
        with torch.inference_mode():
            matches = SIMILARITIES[kind.value](feature.shape[1], neighbors.value).match(feature, tensor)
        inside = ~matches.background[0]
        if state["position"] is None:
            inner = inside.nonzero()[:, 0]
            state["position"] = int(inner[len(inner) // 2])
        position = state["position"]
        figure = plot_neighbors(photo, mask, matches, position, kind.value)
        picture.image = figure_png(figure)
        # Of the drawn figure: from its pixels, upward, to those of the photo.
        state["axes"] = [(axis.bbox.frozen(), axis.transData.inverted()) for axis in figure.axes[:2]]
        state["height"], state["inside"] = figure.bbox.height, inside
        best = matches.similarity[0, position, matches.indices[0, position]]
        values = ", ".join(f"{value:.3f}" for value in best.tolist())
        text.value = f"row {position // columns}, column {position % columns}; {kind.value} with the nearest: {values}"

    def click(change: Mapping) -> None:
        at = change["new"][0], state["height"] - change["new"][1]
        for box, inverse in state["axes"]:
            if box.contains(*at):
                x, y = inverse.transform(at)
                row = min(int(y * rows / mask.shape[0]), rows - 1)  # the box holds its far edges, too
                position = row * columns + min(int(x * columns / mask.shape[1]), columns - 1)
                if not state["inside"][position]:
                    text.value = "That is background: click inside the yellow line."
                    return
                state["position"] = position
                show()

    neighbors.observe(show, "value")
    kind.observe(show, "value")
    picture.observe(click, "clicked")
    show()
    return ipw.VBox([ipw.HBox([neighbors, kind]), picture, text])


def before_after(before: Image.Image | np.ndarray, after: Image.Image | np.ndarray) -> str:
    """Two images of one size behind a line that can be moved, as HTML that needs no kernel and no other file.

    ``before`` is left of the line, ``after`` right of it; both are shown with :data:`PREVIEW` pixels at most. For
    :class:`IPython.display.HTML`.
    """
    images = [image.copy() if isinstance(image, Image.Image) else Image.fromarray(image) for image in (before, after)]
    for image in images:
        image.thumbnail((PREVIEW, PREVIEW))
    pictures = [base64.b64encode(_encoded(image, "WEBP", quality=92)).decode() for image in images]
    over = "position: absolute; top: 0; left: 0; width: 100%; clip-path: inset(0 50% 0 0)"
    line = "position: absolute; top: 0; bottom: 0; left: 50%; width: 2px; background: white"
    move = (
        "const [picture, line] = [...this.previousElementSibling.children].slice(1); "
        "picture.style.clipPath = `inset(0 ${100 - this.value}% 0 0)`; line.style.left = `${this.value}%`"
    )
    return (
        f'<div style="max-width: {images[0].width}px"><div style="position: relative; line-height: 0">'
        f'<img alt="after" style="width: 100%" src="data:image/webp;base64,{pictures[1]}">'
        f'<img alt="before" style="{over}" src="data:image/webp;base64,{pictures[0]}"><div style="{line}"></div></div>'
        f'<input type="range" value="50" style="width: 100%; margin: 0.4em 0" oninput="{move}" '
        'aria-label="line between before and after"><div>left of the line: before; right of it: after</div></div>'
    )


def browse_kernels(model: HDNet, images: Mapping[str, Sample]) -> ipw.Widget:
    """The kernels of each MGD on each of some images (sides are multiples of 8), chosen by name."""
    stages = [name for name, module in model.dynamics.items() if hasattr(module, "kernels")]
    name = ipw.Dropdown(options=list(images), description="image")
    stage = ipw.Dropdown(options=stages, description="MGD after", value=stages[-1])
    composite, picture, text = still(width="160px"), still(), ipw.HTML()

    def show(_: object = None) -> None:
        one = images[name.value]
        with torch.inference_mode():
            inspected = model.inspect(*to_batch(one)[:2])
            module = cast(GlobalDynamic, model.dynamics[stage.value])
            steering = module.steering(inspected.features[f"decoder{stage.value}"]).flatten()
        foreground, background = (kernel[0].numpy() for kernel in inspected.kernels[stage.value])
        picture.value = figure_png(plot_kernels(foreground, background, f"decoder stage {stage.value}, {name.value}"))
        composite.value = as_png(one.composite)
        text.value = "steering scalars: " + ", ".join(f"{value:.3f}" for value in steering.tolist())

    name.observe(show, "value")
    stage.observe(show, "value")
    show()
    return ipw.VBox([ipw.HBox([name, stage]), ipw.HBox([composite, picture]), text])


def browse_by_ratio(table: pd.DataFrame, examples: Triplets, name: str, method: Method) -> ipw.Widget:
    """Evaluated composites by foreground ratio, the one with the highest fMSE first.

    Args:
        table: of :func:`~hdnet_lib.evaluation.scoring.evaluate` under one protocol.
        examples: what was evaluated.
        name: of the method in the table.
        method: the method, which harmonises what is shown.
    """
    before = table[table.method == COMPOSITE].set_index("name")
    ordered = table[table.method == name].sort_values("fmse", ascending=False)
    bins = ratio_bins(ordered)
    ratio = ipw.ToggleButtons(options=[ANY_RATIO, *RATIO_NAMES], description="foreground")
    rank = ipw.IntSlider(1, 1, max(1, len(ordered)), description="worst first")
    picture, text = still(), ipw.HTML()

    def choose() -> pd.DataFrame:
        return ordered if ratio.value == ANY_RATIO else ordered[bins == ratio.value]

    def refill(_: object) -> None:
        rank.value, rank.max = 1, max(1, len(choose()))
        show()

    def show(_: object = None) -> None:
        chosen = choose()
        if chosen.empty:
            picture.value, text.value = b"", "no composite of this size"
            return
        row = chosen.iloc[rank.value - 1]
        case = examples[examples.names.index(row["name"])]
        output = np.rint(method([case])[0]).clip(0, 255).astype(np.uint8)
        figure = show_images(
            [[case.composite, output, case.real, difference(output, case.real)]],
            ["composite", "harmonised", "real", "|harmonised - real|"],
            outline=[case.mask],
        )
        picture.value = figure_png(figure)
        old = before.loc[row["name"]]
        text.value = (
            f"{row['name']}, {row.ratio:.1%} foreground: fMSE {old.fmse:.0f} before, {row.fmse:.0f} after; "
            f"PSNR {old.psnr:.1f} dB before, {row.psnr:.1f} dB after"
        )

    ratio.observe(refill, "value")
    rank.observe(show, "value")
    show()
    return ipw.VBox([ratio, rank, picture, text])


class HarmonizeYourPhoto(ipw.VBox):
    """Upload a composite, upload its mask or draw it, harmonise, compare, save.

    What goes wrong is said in a line below; nothing is overwritten.

    Args:
        model: the network.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.photo: Photo | None = None
        self.mask: Image.Image | None = None
        """The uploaded one; what is drawn comes on top."""
        self.result: Photo | None = None
        self.scale = 1.0
        """Pixels of the photo for each pixel of the picture."""
        self.photo_upload = ipw.FileUpload(accept="image/*", description="1. photo")
        self.mask_upload = ipw.FileUpload(accept="image/*", description="2. mask")
        self.tool = ipw.ToggleButtons(options=["brush", "eraser", "polygon"], style={"button_width": "6em"})
        self.size = ipw.IntSlider(24, 2, 120, description="brush (px)")
        self.undo, self.clear = ipw.Button(description="undo"), ipw.Button(description="clear")
        self.snap = ipw.Checkbox(True, description="snap the mask to the border of the paste", indent=False)
        self.run = ipw.Button(description="3. harmonise", button_style="primary")
        self.name = ipw.Text("harmonised.png", description="file")
        self.save = ipw.Button(description="4. save")
        self.picture = Picture(mode="brush", label="your photo: draw the foreground")
        self.text, self.compared = ipw.HTML(), ipw.VBox()

        ipw.jslink((self.size, "value"), (self.picture, "size"))
        self.photo_upload.observe(self._said(self._open_photo), "value")
        self.mask_upload.observe(self._said(self._open_mask), "value")
        self.picture.observe(self._forget_result, ["shapes"])
        self.snap.observe(self._forget_result, "value")
        self.tool.observe(self._choose_tool, "value")
        self.undo.on_click(self._undo)
        self.clear.on_click(self._clear)
        self.run.on_click(self._said(self._harmonize))
        self.save.on_click(self._said(self._save))
        super().__init__([
            ipw.HBox([self.photo_upload, self.mask_upload]),
            ipw.HBox([self.tool, self.size, self.undo, self.clear]),
            self.picture,
            ipw.HBox([self.snap, self.run, self.name, self.save]),
            self.text,
            self.compared,
        ])  # fmt: skip

    def _say(self, message: str) -> None:
        self.text.value = html.escape(message)

    def _said(self, react: Callable[[Any], None]) -> Callable[[Any], None]:
        """A reaction whose errors are shown in the line below."""

        def run(event: Any) -> None:
            try:
                react(event)
            except ImageError as error:
                self._say(str(error))

        return run

    # --- what is uploaded

    @staticmethod
    def _uploaded(upload: ipw.FileUpload) -> io.BytesIO:
        return io.BytesIO(upload.value[0]["content"])

    def _open_photo(self, change: Mapping) -> None:
        if not change["new"]:
            return
        # Nothing of the last photo stays.
        self.photo, self.picture.image, self.mask_upload.value = None, b"", ()
        self._draw_anew([])
        self.photo = read_photo(self._uploaded(self.photo_upload), self.photo_upload.value[0]["name"])
        self._show_mask(None)
        self._say(
            "Now paint the pasted object with the brush, or go around it with the polygon (a click on its first corner "
            "closes it); or upload its mask, white on the object and black elsewhere. Stay close to its border."
        )

    def _open_mask(self, change: Mapping) -> None:
        if not change["new"]:
            return self._show_mask(None)
        try:
            if self.photo is None:
                raise ImageError("Upload the photo before its mask.")
            opened = read_mask(self._uploaded(self.mask_upload), self.mask_upload.value[0]["name"])
            (height, width), size = opened.shape, self.photo.size
            if (width, height) != size:
                raise ImageError(f"The mask is {width}x{height} pixels, the photo {size[0]}x{size[1]}.")
        except ImageError:
            self.mask_upload.value = ()
            raise
        self._show_mask(Image.fromarray((opened * 255).astype(np.uint8)))
        self._say("The uploaded mask is shown in yellow. What you paint is added to it.")

    def _show_mask(self, mask: Image.Image | None) -> None:
        """Show the photo, with an uploaded mask over it."""
        self.mask = mask
        self._forget_result()
        if self.photo is None:
            return
        preview = self.photo.image
        preview.thumbnail((PREVIEW, PREVIEW))
        self.scale = self.photo.size[0] / preview.width
        if mask:
            tint = Image.blend(preview.convert("RGB"), Image.new("RGB", preview.size, OUTLINE), 0.5)
            preview.paste(tint, mask=mask.resize(preview.size))
        self.picture.image = as_png(preview)

    # --- what is drawn

    def _draw_anew(self, shapes: list, corners: Sequence = ()) -> None:
        self.picture.shapes, self.picture.corners = shapes, list(corners)

    def _choose_tool(self, change: Mapping) -> None:
        self.picture.mode, self.picture.corners = change["new"], []

    def _clear(self, _: object) -> None:
        self._draw_anew([])
        self.mask_upload.value = ()
        self._say("Cleared: paint the object, or upload its mask.")

    def _undo(self, _: object) -> None:
        if self.picture.corners:
            self._draw_anew(self.picture.shapes, self.picture.corners[:-1])
        else:
            self._draw_anew(self.picture.shapes[:-1])

    # --- what comes out

    def _forget_result(self, _: object = None) -> None:
        if self.result:
            self.result, self.compared.children = None, ()
            self._say("The mask has changed: harmonise again.")

    def _harmonize(self, _: object) -> None:
        self.result, self.compared.children = None, ()
        self._say("Harmonising ...")
        if self.photo is None:
            raise ImageError("Upload a photo first.")
        if self.picture.corners:
            raise ImageError("The polygon is not closed: click on its first corner, or take it back with undo.")
        if not (self.picture.shapes or self.mask):
            raise ImageError("Paint the object, or upload its mask.")
        given = draw_shapes(self.picture.shapes, self.mask or Image.new("L", self.photo.size), self.scale)
        job = prepare(self.photo, given, snap=self.snap.value)
        self.result = finish(job, predict(self.model, job))
        before, after, used = self.photo.image, self.result.image, Image.fromarray(job.soft_mask * 255).convert("L")
        for preview in (before, after, given, used):
            preview.thumbnail((PREVIEW, PREVIEW))
        self.compared.children = (ipw.HTML(before_after(before, after)),)
        self._say("Harmonised. Move the line to compare.")
        outlines = [np.asarray(preview) / 255 for preview in (given, used)]
        if self.snap.value and min(before.size) > 1 and all((outline >= 0.5).any() for outline in outlines):
            figure = plot_snapping(np.asarray(before.convert("RGB")), *outlines)
            self.compared.children += (ipw.Image(value=figure_png(figure)),)
            self._say("Harmonised. Move the line to compare. The yellow line below is the mask as it was used.")

    def _save(self, _: object) -> None:
        if self.result is None:
            raise ImageError("Harmonise first.")
        path = Path(self.name.value)
        try:
            if path.exists():
                raise ImageError(f"{path} exists already: choose another name.")
            self.result.save(path)
        except OSError as error:
            raise ImageError(f"{path} cannot be written: {first_line(error)}.") from None
        self._say(f"Saved as {path.resolve()}.")
