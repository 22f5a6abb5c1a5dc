"""Models by name, their shipped weights, and weights trained with the authors' code."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hdnet_lib.model import HDNet

WEIGHTS = Path(__file__).parent / "weights"

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
        raise ValueError(f"There is no model called {name!r}. Known models: {', '.join(_PRESETS)}.")
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
        raise ValueError(f"No weights for {name!r} come with this package. There are: {', '.join(shipped)}.")
    entry = shipped[name]
    path = WEIGHTS / entry.file
    if not path.is_file():
        raise ValueError(f"The weights file {entry.file} is missing from the installed package. Install it again.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise ValueError(f"The weights file {entry.file} is not the one that was shipped (sha256 differs).")
    model = create_model(entry.model, **entry.overrides)
    model.load_state_dict(load_file(path))
    return model.eval()


# Released name -> ours. The released layers are numbered 0 to 6, 71, 72, 8 to 13.
_DECODER = {"72": 0, "8": 1, "9": 2, "10": 3, "11": 4, "12": 5, "13": 6}


def _rename(key: str) -> str | None:
    """Our name for a released key, or None where we have no such tensor."""
    if match := re.fullmatch(r"model_layer([0-6])(?:\.1)?\.weight", key):
        return f"encoder.{match[1]}.conv.weight"
    if key == "model_layer71.1.weight":
        return "bottleneck.weight"
    if match := re.fullmatch(r"LD\.linear\.(weight|bias)", key):
        return f"local_dynamic.adaptive.{match[1]}"
    if match := re.fullmatch(r"model_layer(72|8|9|1[0-3])\.1\.weight", key):
        return f"decoder.{_DECODER[match[1]]}.conv.weight"
    if match := re.fullmatch(r"model_layer(72|8|9|1[0-3])norm\.((?:fore|back)ground_(?:gamma|beta))", key):
        return f"decoder.{_DECODER[match[1]]}.rain.{match[2]}"
    if match := re.fullmatch(r"model_layer(1[1-3])att\.conv_kernel\.([13])\.(weight|bias)", key):
        return f"dynamics.{_DECODER[match[1]]}.{ {'1': 'squeeze', '3': 'expand'}[match[2]] }.{match[3]}"
    if match := re.fullmatch(r"model_layer(1[1-3])att\.conv_guide\.(weight|bias)", key):
        return f"dynamics.{_DECODER[match[1]]}.guide.conv.{match[2]}"
    if match := re.fullmatch(r"model_out\.1\.(weight|bias)", key):
        return f"output.{match[1]}"
    return None


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
    released = {key.removeprefix("module."): value for key, value in state_dict.items()}
    first = released.get("model_layer0.weight")
    if first is None:
        raise ValueError("This is not a state dict of the released HDNet: it has no 'model_layer0.weight'.")
    model = create_model("hdnet", width=first.shape[0], local_dynamic="released")
    expected = model.state_dict()
    renamed = {}
    for key, value in released.items():
        name = _rename(key)
        if name is None:
            raise ValueError(f"The released HDNet has no tensor called {key!r}; was this trained with another network?")
        if ".guide." in name:
            continue
        if value.shape != expected[name].shape:
            raise ValueError(f"{key!r} has the shape {tuple(value.shape)}, not {tuple(expected[name].shape)}.")
        renamed[name] = value
    if missing := sorted(expected.keys() - renamed.keys()):
        raise ValueError(f"The state dict lacks {len(missing)} tensors, among them the one for {missing[0]!r}.")
    model.load_state_dict(renamed)
    return model.eval()
