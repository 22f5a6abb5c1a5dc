"""Who is scored: networks, results of other programs, and baselines without a network."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hdnet_lib.composites.recipes import match_histograms, reinhard, xiao
from hdnet_lib.data.images import read_rgb, to_signed, to_tensor, to_unit
from hdnet_lib.data.samples import Sample
from hdnet_lib.inference.load import load_model
from hdnet_lib.model.hdnet import paste
from hdnet_lib.registry import PICKLED, list_pretrained
from hdnet_lib.utils.device import choose_device

COMPOSITE = "composite"
"""The method that changes nothing; every evaluation holds it, to compare with."""

Method = Callable[[Sequence[Sample]], Sequence[np.ndarray]]
"""Samples of one size -> the harmonised image of each: (H, W, 3), uint8, or float on the scale 0 to 255."""


class ModelMethod:
    """A model as a method; the result is pasted on the composite."""

    def __init__(self, model: nn.Module, device: str | torch.device = "cpu") -> None:
        self.model, self.device = model.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, examples: Sequence[Sample]) -> list[np.ndarray]:
        """The harmonised images, float on the scale 0 to 255."""
        composites, masks = (
            torch.cat([to_tensor(image) for image in images]).to(self.device)
            for images in ([e.composite for e in examples], [e.mask for e in examples])
        )
        output = paste(to_unit(self.model(to_signed(composites), masks)), composites, masks)
        return list((output * 255).permute(0, 2, 3, 1).cpu().numpy())


class ResultFolder:
    """Images that another program made of the composites: PNG or JPEG, named as the composites are.

    Looked for as ``<folder>/<subset>/<name>``, ``<folder>/<subset>/composite_images/<name>`` and ``<folder>/<name>``.
    An image of the composite's own size is squeezed as the composite is; one of the size of the evaluation stays.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __call__(self, examples: Sequence[Sample]) -> list[np.ndarray]:
        """The images, uint8.

        Raises:
            ValueError: an image is missing, is damaged or has another size.
        """
        return [self._read(example) for example in examples]

    def _read(self, example: Sample) -> np.ndarray:
        subset, _, stem = example.name.rpartition("/")
        folders = (self.folder / subset, self.folder / subset / "composite_images", self.folder)
        paths = [folder / f"{stem}{suffix}" for folder in folders for suffix in (".png", ".jpg", ".jpeg")]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise ValueError(f"{self.folder}: there is no result for {example.name}: {paths[0]} is missing.")
        image = read_rgb(found, "result", stored=True)
        height, width = example.mask.shape
        if image.size != (width, height):
            if image.size != example.original:
                sizes = " or ".join(f"{w}x{h}" for w, h in ((width, height), example.original) if w)
                raise ValueError(f"{found}: the result is {image.width}x{image.height} pixels, not {sizes}.")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _transfer(recipe: Callable[..., Tensor], examples: Sequence[Sample]) -> list[np.ndarray]:
    """Give the foreground the colours of its own background."""
    pairs = [(to_tensor(example.composite), to_tensor(example.mask)) for example in examples]
    results = [recipe(composite, mask, composite, 1 - mask) if mask.any() else composite for composite, mask in pairs]
    return [result[0].permute(1, 2, 0).numpy() * 255 for result in results]


BASELINES: dict[str, Method] = {
    COMPOSITE: lambda examples: [example.composite for example in examples],
    "reinhard": partial(_transfer, reinhard),
    "xiao": partial(_transfer, xiao),
    "histogram": partial(_transfer, match_histograms),
}
"""Methods without a network; three transfer the colours of the background to the foreground."""


def method_name(model: str) -> str:
    """What a method is called in a table: a model's own name, or a file's or folder's without path and ending."""
    return Path(model).name.removesuffix(".safetensors").removesuffix(".onnx")


def load_method(model: str, device: str = "auto", precision: str = "fp32") -> Method:
    """A method by name.

    Args:
        model: one of :data:`BASELINES`, weights that come with the package, a ``.safetensors`` or ``.onnx`` file, or
            a folder of results (:class:`ResultFolder`).
        device: of a network: "auto" (a GPU where there is one), or as PyTorch names it.
        precision: of a network, see :func:`~hdnet_lib.inference.load.load_model`.

    Raises:
        ValueError: there is nothing of that name, or it cannot be read.
    """
    if not model:
        raise ValueError("a model has an empty name.")
    if model in BASELINES:
        return BASELINES[model]
    if model.endswith(".onnx"):
        return ModelMethod(load_model(model, precision))
    if model in list_pretrained() or Path(model).suffix in (".safetensors", *PICKLED):
        return ModelMethod(load_model(model, precision), choose_device(device))
    if Path(model).is_dir():
        return ResultFolder(model)
    known = ", ".join([*BASELINES, *list_pretrained()])
    raise ValueError(f"{model}: neither a folder of results, nor a .safetensors or .onnx file, nor one of {known}.")


def parse_models(text: str) -> list[str]:
    """Names separated by commas, as a notebook's parameter holds them; ``zoo/*.safetensors`` stands for its files.

    Raises:
        ValueError: a pattern matches no file.
    """
    models = []
    for name in filter(None, map(str.strip, text.split(","))):
        found = sorted(map(str, Path(name).parent.glob(Path(name).name))) if "*" in name else [name]
        if not found:
            raise ValueError(f"{name}: there is no such file.")
        models += found
    return models


def load_methods(models: Iterable[str], device: str = "auto", precision: str = "fp32") -> dict[str, Method]:
    """Methods by their names in a table, first of all the composite as it is.

    Raises:
        ValueError: two have the same name; and see :func:`load_method`.
    """
    methods: dict[str, Method] = {COMPOSITE: BASELINES[COMPOSITE]}
    for model in models:
        name = method_name(model)
        if name in methods and model != COMPOSITE:
            raise ValueError(f"two methods are called {name}: rename a file.")
        methods[name] = load_method(model, device, precision)
    return methods


def fingerprint(model: str) -> str:
    """What changes when a method of :func:`load_method` does."""
    if model in BASELINES:
        return model
    if model in list_pretrained():
        return list_pretrained()[model].sha256
    path = Path(model)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    return f"{len(files)} files, the newest of {max((file.st_mtime_ns for file in files), default=0)}"
