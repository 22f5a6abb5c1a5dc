"""Models by name, their shipped weights, and weights trained with the authors' code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from hdnet_lib.errors import reason
from hdnet_lib.export import OnnxModel
from hdnet_lib.model import HDNet

WEIGHTS = Path(__file__).parent / "weights"
ZOO_SCORES = WEIGHTS / "zoo_scores.csv.gz"
"""Scores of every run of the zoo, all seeds, on the validation photos: a table of
:func:`~hdnet_lib.evaluation.evaluate`, whose settings lie beside it. Of each entry only one seed's weights ship."""

PRECISIONS = ("fp32", "bf16")

_PRESETS: dict[str, dict] = {
    "hdnet": {"width": 32},
    "hdnet-lite": {"width": 8},
    "hdnet-nano": {"width": 2},
    # Table 3. Only these change the architecture.
    "base": {"width": 32, "use_local_dynamic": False, "decoder_module": None},
    "base+ld": {"width": 32, "decoder_module": None},
    "base+sa": {"width": 32, "use_local_dynamic": False, "decoder_module": "sa"},
    "base+mgd": {"width": 32, "use_local_dynamic": False},
    "hdnet-star": {"width": 32, "learned_mask": True},
}


def list_models() -> list[str]:
    """Names that :func:`create_model` knows."""
    return list(_PRESETS)


def create_model(name: str, **overrides) -> HDNet:
    """Build a model with fresh random weights.

    Args:
        name: one of :func:`list_models`: "hdnet" (width 32), "hdnet-lite" (width 8), "hdnet-nano"
            (width 2, for tests), or a row of Table 3 at width 32.
        **overrides: arguments of :class:`~hdnet_lib.model.HDNet`, such as ``width``, ``k`` and
            ``local_dynamic``. A row without LD accepts the last two and has no use for them.

    Raises:
        ValueError: the name or an argument is unknown or out of range.
    """
    if name not in _PRESETS:
        raise ValueError(f"there is no model called {name!r}, only {', '.join(_PRESETS)}.")
    try:
        return HDNet(**{**_PRESETS[name], **overrides})
    except TypeError as error:
        raise ValueError(f"create_model({name!r}): {str(error).removeprefix('HDNet.__init__() ')}.") from None


@dataclass(frozen=True)
class Pretrained:
    """One line of ``weights/index.json``."""

    model: str
    """Name for :func:`create_model`."""
    overrides: dict
    """Arguments beside the name."""
    file: str
    """File in ``hdnet_lib/weights``."""
    sha256: str
    trained_on: str
    """Data, budget and seed in a sentence; ``weights/MODEL_CARD.md`` tells the rest."""


def list_pretrained() -> dict[str, Pretrained]:
    """The weights that come with the package, by name, with what each was trained on."""
    index = json.loads((WEIGHTS / "index.json").read_text())
    return {name: Pretrained(**entry) for name, entry in index.items()}


def load_pretrained(name: str = "hdnet-lite") -> HDNet:
    """Build a model with weights that come with the package, in evaluation mode.

    The file is safetensors, so nothing is unpickled, and its sha256 is checked first.

    Raises:
        ValueError: there are no such weights, or the file is not the one that was shipped.
    """
    shipped = list_pretrained()
    if name not in shipped:
        raise ValueError(f"no weights for {name!r} come with this package, only for {', '.join(shipped)}.")
    entry = shipped[name]
    path = WEIGHTS / entry.file
    if not path.is_file():
        raise ValueError(f"the weights file {entry.file} is missing from the installed package.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise ValueError(f"the weights file {entry.file} is not the one that was shipped: its sha256 differs.")
    model = create_model(entry.model, **entry.overrides)
    model.load_state_dict(load_file(path))
    return model.eval()


def load_model(name: str, precision: str = "fp32") -> HDNet | OnnxModel:
    """Weights that come with the package, or a file of your own.

    Args:
        name: one of :func:`list_pretrained`, or a file whose name ends with .safetensors (:func:`load_weights`) or
            .onnx (:class:`~hdnet_lib.export.OnnxModel`).
        precision: "fp32", or "bf16" to compute the convolutions in bfloat16, which pays on wide networks.

    Raises:
        ValueError: see there; or an .onnx file, which has its own precision, is to have another.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, not {precision!r}.")
    if name.endswith(".onnx"):
        if precision != "fp32":
            raise ValueError(f"{name}: an ONNX file has the precision that it was exported with.")
        return OnnxModel(name)
    model = load_weights(name) if name.endswith(".safetensors") else load_pretrained(name)
    return in_bf16(model) if precision == "bf16" else model


def in_bf16(model: HDNet) -> HDNet:
    """Let a network compute under autocast; weights and output stay float32. Changes the network that is given."""
    forward = model.forward

    def run(composite: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(composite.device.type, torch.bfloat16):
            return forward(composite, mask).float()

    model.forward = run
    return model


def load_weights(path: str | Path) -> HDNet:
    """Build a model with weights that ``hdnet train`` wrote, in evaluation mode; nothing is unpickled.

    Raises:
        ValueError: the file cannot be read, or does not say which model it belongs to.
    """
    try:
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
        name, overrides = config["model"], config.get("overrides", {})
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path}: the file does not name its model, so it was not written by `hdnet train`.") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: the weights cannot be read: {reason(error)}.") from None
    model = create_model(name, **overrides)
    fill(model, path)
    return model.eval()


def fill(model: HDNet, path: str | Path) -> None:
    """Load weights (safetensors) into a model.

    Raises:
        ValueError: the file cannot be read, or its tensors are not those of the model.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: these weights do not fit the model: {reason(error)}.") from None


def _released_names() -> dict[str, str | None]:
    """Released name -> ours, or None for a tensor that the released code holds and never uses."""
    names: dict[str, str | None] = {"model_layer0.weight": "encoder.0.conv.weight"}
    names |= {f"model_layer{layer}.1.weight": f"encoder.{layer}.conv.weight" for layer in range(1, 7)}
    names["model_layer71.1.weight"] = "bottleneck.weight"
    for kind in ("weight", "bias"):
        names[f"LD.linear.{kind}"] = f"local_dynamic.adaptive.{kind}"
        names[f"model_out.1.{kind}"] = f"output.{kind}"
    for stage, layer in enumerate((72, 8, 9, 10, 11, 12, 13)):
        names[f"model_layer{layer}.1.weight"] = f"decoder.{stage}.conv.weight"
        for vector in ("foreground_gamma", "foreground_beta", "background_gamma", "background_beta"):
            names[f"model_layer{layer}norm.{vector}"] = f"decoder.{stage}.rain.{vector}"
        if layer in (11, 12, 13):
            for kind in ("weight", "bias"):
                names[f"model_layer{layer}att.conv_kernel.1.{kind}"] = f"dynamics.{stage}.squeeze.{kind}"
                names[f"model_layer{layer}att.conv_kernel.3.{kind}"] = f"dynamics.{stage}.expand.{kind}"
                names[f"model_layer{layer}att.conv_guide.{kind}"] = None
    return names


def load_released_state_dict(state_dict: Mapping[str, Tensor]) -> HDNet:
    """Turn weights trained with the authors' code into a model that computes what that code computes.

    The width is read from the tensors, LD is the released one, and the guide convolutions, which the
    released code holds but never calls, are left out. Read a ``.pth`` file with
    ``torch.load(path, weights_only=True)``, which runs no code from it.

    Args:
        state_dict: the released keys ("model_layer0.weight", ...), with or without the prefix
            "module." of DataParallel.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: a tensor is missing, unknown or of the wrong shape; the sentence names it.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise ValueError(f"A state dict maps names to tensors; this is a {type(state_dict).__name__}.")
    released = {key.removeprefix("module."): value for key, value in state_dict.items()}
    first = released.get("model_layer0.weight")
    if first is None:
        raise ValueError("This is not a state dict of the released HDNet: it has no 'model_layer0.weight'.")
    model = create_model("hdnet", width=first.shape[0], local_dynamic="released")
    names, expected = _released_names(), model.state_dict()
    renamed = {}
    for key, value in released.items():
        if key not in names:
            raise ValueError(f"The released HDNet has no tensor called {key!r}; was this trained with another network?")
        name = names[key]
        if name is None:
            continue
        if value.shape != expected[name].shape:
            raise ValueError(f"{key!r} has the shape {tuple(value.shape)}, not {tuple(expected[name].shape)}.")
        renamed[name] = value
    if missing := [key for key, name in names.items() if name and key not in released]:
        raise ValueError(f"The state dict lacks {len(missing)} tensors, among them {missing[0]!r}.")
    model.load_state_dict(renamed)
    return model.eval()
