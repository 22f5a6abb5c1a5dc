"""Draw the six diagrams of the course into notebooks/images/, as SVG: one style, on paper of its own for dark pages.

python data_scripts/make_diagrams.py [FOLDER]
"""

import argparse
import math
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path

from hdnet_lib import create_model
from hdnet_lib.model.architecture import layer_table

INK, QUIET, PAPER, LINE = "#222222", "#666666", "#fcfbf8", "#999999"
FOREGROUND, BACKGROUND, DYNAMIC = "#d55e00", "#0173b2", "#029e73"
"""Orange is the foreground and blue the background in every diagram; seaborn's "colorblind" palette."""
WARM, COOL = ("#e8a15c", "#b5651d"), ("#7fa08a", "#3f6b52")
"""Crown and trunk of a tree under an evening lamp, and of one that stands in the scene."""


class Drawing:
    """Shapes on a sheet, in pixels."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height = width, height
        self.shapes = [
            f"<title>{escape(title)}</title>",
            self._tag("rect", width=width, height=height, rx=10, fill=PAPER),
        ]
        self.shapes.append(
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 1 10 5 0 9z" fill="{INK}"/></marker></defs>'
        )

    @staticmethod
    def _tag(name: str, content: str = "", **attributes: object) -> str:
        given = " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in attributes.items() if value is not None)
        return f"<{name} {given}>{content}</{name}>" if content else f"<{name} {given}/>"

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "white",
        edge: str | None = INK,
        rx: float = 4,
    ) -> None:
        self.shapes.append(self._tag("rect", x=x, y=y, width=width, height=height, rx=rx, fill=fill, stroke=edge))

    def shape(self, points: Iterable[tuple[float, float]], fill: str) -> None:
        self.shapes.append(self._tag("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), fill=fill))

    def circle(self, x: float, y: float, radius: float, fill: str, edge: str | None = None) -> None:
        self.shapes.append(self._tag("circle", cx=x, cy=y, r=radius, fill=fill, stroke=edge))

    def text(
        self, x: float, y: float, content: str, size: float = 14, anchor: str = "middle", fill: str = INK,
        weight: str | None = None, style: str | None = None
    ) -> None:  # fmt: skip
        """One line, or several between which \\n stands; y is the first baseline."""
        for number, line in enumerate(content.split("\n")):
            self.shapes.append(
                self._tag("text", escape(line), x=x, y=round(y + number * size * 1.25, 1), font_size=size, fill=fill,
                          text_anchor=anchor, font_weight=weight, font_style=style)
            )  # fmt: skip

    def arrow(
        self, *points: tuple[float, float], color: str = INK, width: float = 1.6, tip: bool = True,
        dash: str | None = None
    ) -> None:  # fmt: skip
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.shapes.append(
            self._tag("path", d=path, fill="none", stroke=color, stroke_width=width, stroke_dasharray=dash,
                      marker_end="url(#tip)" if tip else None)
        )  # fmt: skip

    def curve(self, points: Iterable[tuple[float, float]], color: str) -> None:
        self.arrow(*points, color=color, width=2.4, tip=False)

    def save(self, path: Path) -> None:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="\'DejaVu Sans\', Verdana, Arial, sans-serif" role="img">'
        )
        path.write_text("\n".join([head, *self.shapes, "</svg>"]) + "\n", encoding="utf-8")


def scene(d: Drawing, x: float, y: float, tree: tuple[str, str], side: float = 150) -> None:
    """A cool valley in fog, with a tree of these colours."""
    u = side / 150
    d.box(x, y, side, side * 0.75, "#cfdde3", None, 0)
    d.shape([(x, y + 62 * u), (x + 45 * u, y + 38 * u), (x + 95 * u, y + 60 * u), (x + 150 * u, y + 42 * u),
             (x + 150 * u, y + 112.5 * u), (x, y + 112.5 * u)], "#a3bcc0")  # fmt: skip
    d.shape([(x, y + 84 * u), (x + 60 * u, y + 74 * u), (x + 150 * u, y + 88 * u), (x + 150 * u, y + 112.5 * u),
             (x, y + 112.5 * u)], "#7d9c96")  # fmt: skip
    draw_tree(d, x, y, u, *tree)
    d.box(x, y, side, side * 0.75, "none", INK, 0)


def draw_tree(d: Drawing, x: float, y: float, u: float, crown: str, trunk: str) -> None:
    d.box(x + 91 * u, y + 72 * u, 9 * u, 26 * u, trunk, None, 0)
    for dx, dy, radius in ((95, 42, 21), (80, 56, 17), (111, 57, 17), (96, 62, 18)):
        d.circle(x + dx * u, y + dy * u, radius * u, crown)


def draw_mask(d: Drawing, x: float, y: float, side: float = 150) -> None:
    d.box(x, y, side, side * 0.75, "black", INK, 0)
    draw_tree(d, x, y, side / 150, "white", "white")


def task() -> Drawing:
    d = Drawing(860, 268, "The task: composite and mask go into the network, and a harmonised photo comes out")
    scene(d, 30, 40, WARM)
    d.text(105, 180, "composite", weight="bold")
    d.text(105, 200, "a tree from another photo,\nunder another light", 12, fill=QUIET)
    draw_mask(d, 220, 40)
    d.text(295, 180, "mask", weight="bold")
    d.text(295, 200, "white where the tree is:\nthe foreground", 12, fill=QUIET)
    d.arrow((384, 96), (428, 96))
    d.box(432, 62, 110, 68, "#eaf4f0", DYNAMIC)
    d.text(487, 92, "HDNet", 17, weight="bold")
    d.text(487, 114, "what light is here?", 10.5, fill=QUIET)
    d.arrow((546, 96), (590, 96))
    scene(d, 600, 40, COOL, 200)
    d.text(700, 216, "harmonised", weight="bold")
    d.text(700, 236, "the tree in the light of the valley;\nthe rest as it was", 12, fill=QUIET)
    return d


def composite() -> Drawing:
    d = Drawing(860, 284, "How a composite is made: a recipe recolours one object of a real photo")
    scene(d, 30, 50, COOL)
    d.text(105, 36, "1. a real photo", weight="bold")
    draw_mask(d, 30, 170, 90)
    d.text(130, 205, "2. the mask of\nan object", 14, "start", weight="bold")
    d.arrow((190, 106), (290, 106))
    d.text(240, 96, "cut out", 12, fill=QUIET)
    d.box(300, 62, 96, 88, "white", LINE)
    draw_tree(d, 273, 52, 0.8, *COOL)
    d.arrow((400, 106), (470, 106))
    d.box(474, 62, 130, 88, "#fdf1e6", FOREGROUND)
    d.text(539, 88, "3. a recipe", weight="bold")
    d.text(539, 108, "light, tone, or the\ncolours of another\nphoto's object", 11, fill=QUIET)
    d.arrow((608, 106), (666, 106))
    scene(d, 676, 50, WARM)
    d.text(751, 36, "4. the composite", weight="bold")
    d.text(751, 180, "only the object differs\nfrom the real photo", 12, fill=QUIET)
    d.arrow((28, 106), (16, 106), (16, 266), (751, 266), (751, 210))
    d.text(390, 256, "the real photo is the answer: training and scores compare with it", 12, fill=QUIET)
    return d


def hdnet() -> Drawing:
    """The network as a U, with the sizes that the layer table of HDNet has at 256 pixels."""
    table = layer_table(create_model("hdnet"))
    d = Drawing(
        960, 540, "HDNet: encoder, bottleneck, local dynamic module, decoder with RAIN, three global dynamic modules"
    )
    d.text(30, 34, "HDNet, width 32, at 256 pixels", 17, "start", weight="bold")
    d.text(930, 34, "channels @ height x width of what leaves each stage", 12, "end", QUIET)
    rows = {0: 70, 1: 130, 2: 190, 3: 250, 4: 310, 5: 370, 6: 430}

    def stage(name: str, x: float, y: float, fill: str, edge: str, label: str, width: float = 150) -> None:
        row = table.loc[name]
        d.box(x, y, width, 40, fill, edge)
        d.text(x + width / 2, y + 17, label, 12.5, weight="bold")
        d.text(x + width / 2, y + 33, f"{row.channels} @ {row.height} x {row.width}", 11, fill=QUIET)

    for index, y in rows.items():
        stage(f"encoder.{index}", 40, y, "#e9f1f8", BACKGROUND, f"encoder.{index}")
        if index:
            d.arrow((115, y - 20), (115, y - 1))
        up = 6 - index
        stage(f"decoder.{up}", 440, y, "#f4f4f4", LINE, f"decoder.{up} + RAIN")
        if up < 4:  # what an MGD follows goes on from the MGD
            d.arrow((515, y), (515, y - 19))
        d.arrow((190, y + 20), (438, y + 20), color=LINE, dash="5 4")
        if up >= 4:
            stage(f"dynamics.{up}", 640, y, "#e6f4ef", DYNAMIC, f"dynamics.{up}: MGD")
            d.arrow((590, y + 20), (638, y + 20))
            if up < 6:
                d.arrow((715, y), (715, y - 12), (560, y - 12), (560, y - 19))
    d.text(314, 84, "skip: joined to the stage's own map", 12, fill=QUIET)
    stage("bottleneck", 130, 486, "#e9f1f8", BACKGROUND, "bottleneck", 140)
    stage("local_dynamic", 320, 486, "#e6f4ef", DYNAMIC, "local_dynamic: LD", 160)
    d.arrow((80, 470), (80, 506), (128, 506))
    d.arrow((272, 506), (318, 506))
    d.arrow((482, 506), (555, 506), (555, 472))
    d.arrow((115, 48), (115, 68))
    d.text(126, 62, "composite: 3 @ 256 x 256", 12, "start")
    d.arrow((790, 90), (826, 90))
    stage("output", 830, 70, "#f4f4f4", LINE, "output", 104)
    d.text(882, 128, "pasted into the\ncomposite by the mask", 10.5, fill=QUIET)
    d.text(640, 290, "The mask goes to RAIN, LD and MGD,", 12.5, "start")
    d.text(640, 308, "shrunk to the size of their maps.", 12.5, "start")
    d.text(640, 340, "Green: the two modules that are", 12.5, "start")
    d.text(640, 358, "new in the paper.", 12.5, "start")
    d.text(640, 390, "HDNet-lite has the same shape and", 12.5, "start")
    d.text(640, 408, "a quarter of the channels.", 12.5, "start")
    return d


def local_dynamic() -> Drawing:
    d = Drawing(860, 330, "LD in four steps: compare, choose, mix, join")
    titles = ("1. compare", "2. choose K", "3. mix", "4. join and replace")
    for number, title in enumerate(titles):
        d.text(112 + 212 * number, 34, title, 16, weight="bold")
    cell, left, top = 30, 52, 58
    inside = {(1, 1), (2, 1), (1, 2), (2, 2)}
    rows = ((0.2, 0.4, 0.9, 0.8), (0.3, None, None, 0.7), (0.1, None, None, 0.3), (0.2, 0.1, 0.3, 0.5))
    nearest = ((2, 0), (3, 0), (3, 1))
    for panel in range(2):
        x0 = left + 212 * panel
        for column in range(4):
            for row in range(4):
                x, y, place = x0 + column * cell, top + row * cell, (column, row)
                query, chosen = place == (2, 1), panel == 1 and place in nearest
                d.box(
                    x,
                    y,
                    cell - 3,
                    cell - 3,
                    "#f6cfb3" if place in inside else "#cfe2f0",
                    INK if query or chosen else None,
                    3,
                )
                if query:
                    d.circle(x + 13.5, y + 13.5, 5, FOREGROUND)
                elif place not in inside:
                    d.text(x + 13.5, y + 18, f"{rows[row][column]:.1f}", 10.5, weight="bold" if chosen else None)
    d.text(112, 200, "cosine of the marked position with\nevery background position", 11.5, fill=QUIET)
    d.text(112, 236, "Eq. 2, 3", 12, style="italic")
    d.text(324, 200, "the K most similar of the\nbackground (here K = 3)", 11.5, fill=QUIET)
    d.text(324, 236, "top K", 12, style="italic")
    exponentials = [math.exp(rows[row][column]) for column, row in nearest]
    weights = [each / sum(exponentials) for each in exponentials]
    for number, weight in enumerate(weights):
        y = 62 + 34 * number
        d.box(456, y, 60, 22, "#cfe2f0", BACKGROUND)
        d.text(486, y + 15.5, f"x {weight:.2f}", 11.5)
        d.arrow((518, y + 11), (545, 107), width=1.2, tip=number == 1)
    d.box(548, 96, 62, 22, "#a7cbe5", BACKGROUND)
    d.text(579, 111.5, "reference", 10.5)
    d.text(536, 200, "softmax of the similarities\ngives the weights, which add to 1", 11.5, fill=QUIET)
    d.text(536, 236, "Eq. 4", 12, style="italic")
    d.box(672, 64, 66, 22, "#a7cbe5", BACKGROUND)
    d.text(705, 79.5, "reference", 10.5)
    d.box(672, 100, 66, 22, "#f6cfb3", FOREGROUND)
    d.text(705, 115.5, "foreground", 10.5)
    d.arrow((741, 75), (764, 88), width=1.2)
    d.arrow((741, 111), (764, 98), width=1.2)
    d.box(767, 78, 26, 30, "#e6f4ef", DYNAMIC)
    d.text(780, 98, "g", 14, style="italic")
    d.arrow((795, 93), (808, 93), width=1.2)
    d.box(810, 82, 36, 22, "#eeb489", FOREGROUND)
    d.text(828, 97.5, "new", 10.5)
    d.text(752, 200, "the 1x1 convolution g joins both;\nits result replaces the feature", 11.5, fill=QUIET)
    d.text(752, 236, "Eq. 5", 12, style="italic")
    for number in range(3):
        d.arrow((196 + 212 * number, 107), (226 + 212 * number, 107), width=2.4)
    d.box(40, 262, 16, 16, "#f6cfb3", None, 3)
    d.text(62, 275, "foreground position", 12, "start")
    d.box(220, 262, 16, 16, "#cfe2f0", None, 3)
    d.text(242, 275, "background position: it stays as it is", 12, "start")
    d.text(40, 303, "A position is one place of the bottleneck's map, 8 pixels wide in the photo.", 12, "start", QUIET)
    return d


def global_dynamic() -> Drawing:
    d = Drawing(960, 310, "MGD: two kernels for each image, one for the foreground and one for the background")
    d.box(30, 120, 96, 72, "#f4f4f4", LINE)
    d.text(78, 152, "feature", weight="bold")
    d.text(78, 172, "C @ H x W", 11, fill=QUIET)
    d.arrow((78, 118), (78, 66), (146, 66))
    d.box(150, 46, 96, 40, "white", LINE)
    d.text(198, 71, "mean of all", 12)
    d.arrow((248, 66), (276, 66))
    d.box(280, 40, 110, 52, "#e6f4ef", DYNAMIC)
    d.text(335, 62, "squeeze", 13, weight="bold")
    d.text(335, 80, "4 scalars in (0, 1)", 10.5, fill=QUIET)
    for y, color in ((54, FOREGROUND), (78, BACKGROUND)):
        d.arrow((392, y), (428, y), color=color)
        d.text(410, y - 5, "2", 10.5, fill=color)
    d.box(432, 40, 90, 52, "#e6f4ef", DYNAMIC)
    d.text(477, 62, "expand", 13, weight="bold")
    d.text(477, 80, "affine", 10.5, fill=QUIET)
    for y, color, fill, name, region in (
        (30, FOREGROUND, "#f6cfb3", "W_f", "x M"),
        (110, BACKGROUND, "#cfe2f0", "W_b", "x (1 - M)"),
    ):
        d.arrow((524, 66), (544, y + 22), color=color)
        for row in range(4):
            for column in range(4):
                strength = 0.35 + 0.65 * abs(math.sin(3.1 * row + 1.7 * column + y))
                d.shapes.append(d._tag("rect", x=548 + 11 * column, y=y + 11 * row, width=10, height=10, fill=color,
                                       fill_opacity=round(strength, 2)))  # fmt: skip
        d.text(570, y + 60, f"{name}: C x C", 12, fill=color, weight="bold")
        d.arrow((594, y + 22), (640, y + 22), color=color)
        d.box(644, y + 2, 126, 40, fill, color)
        d.text(707, y + 27, f"(F * {name}) {region}", 13, style="italic")
        d.arrow((772, y + 22), (794, 83 + (y > 50) * 18))
    d.arrow((128, 156), (190, 156), (190, 196), (626, 196), (626, 138), (640, 138))
    d.arrow((626, 138), (626, 58), (640, 58))
    d.circle(804, 92, 12, "white", INK)
    d.text(804, 97, "+", 16)
    d.arrow((818, 92), (838, 92))
    d.box(842, 66, 92, 52, "#f4f4f4", LINE)
    d.text(888, 88, "feature", 13, weight="bold")
    d.text(888, 106, "C @ H x W", 11, fill=QUIET)
    d.text(
        30,
        244,
        "Eq. 6: one 1x1 convolution for the object and another for the rest, computed anew for each image.",
        13,
        "start",
    )
    d.text(
        30,
        270,
        "F: the feature. M: the mask at its size. *: 1x1 convolution. x: product at each position.",
        12,
        "start",
        QUIET,
    )
    return d


def rain() -> Drawing:
    d = Drawing(860, 300, "RAIN: the foreground gets the mean and the spread of the background, channel by channel")

    def bell(x0: float, mean: float, spread: float, color: str, label: str, up: float = 0) -> None:
        points = [(x0 + t, 190 - 100 * math.exp(-(((t - mean) / spread) ** 2) / 2)) for t in range(0, 221, 4)]
        d.curve(points, color)
        d.arrow((x0 + mean, 190), (x0 + mean, 90), color=color, width=1, tip=False, dash="3 3")
        d.text(x0 + mean, 80 - up, label, 12.5, fill=color, weight="bold")

    for number, title in enumerate(("as they come", "foreground by its own", "foreground with the background's")):
        x0 = 30 + 280 * number
        d.text(x0 + 110, 34, title, 14, weight="bold")
        d.arrow((x0, 190), (x0 + 226, 190))
        d.text(x0 + 220, 207, "value of a channel", 11, "end", QUIET)
    bell(30, 70, 18, FOREGROUND, "foreground")
    bell(30, 150, 34, BACKGROUND, "background", 18)
    bell(310, 110, 26, FOREGROUND, "mean 0, spread 1")
    bell(590, 150, 34, FOREGROUND, "where the background was")
    d.arrow((258, 140), (304, 140), width=2.4)
    d.arrow((538, 140), (584, 140), width=2.4)
    d.text(420, 234, "(x - mean_f) / sd_f", 13, style="italic", fill=FOREGROUND)
    d.text(700, 234, "(x - mean_f) / sd_f · sd_b + mean_b", 13, style="italic", fill=FOREGROUND)
    d.text(30, 264, "The background itself becomes (x - mean_b) / sd_b.", 12.5, "start", QUIET)
    d.text(30, 282, "Then each region gets a scale and a shift that are learned.", 12.5, "start", QUIET)
    return d


DIAGRAMS = {"task": task, "composite": composite, "hdnet": hdnet, "local_dynamic": local_dynamic,
            "global_dynamic": global_dynamic, "rain": rain}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).resolve().parents[1] / "notebooks" / "images"
    parser.add_argument("folder", type=Path, nargs="?", default=folder, help="default: notebooks/images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        draw().save(folder / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
