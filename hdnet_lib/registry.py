"""Models by name, and their shipped weights."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.hdnet import HDNet
from hdnet_lib.model.local_dynamic import LocalDynamic
from hdnet_lib.model.rain import RAIN
from hdnet_lib.model.streaming import StreamingLocalDynamic
from hdnet_lib.model.variants import (
    ConstantKernels,
    DotProduct,
    InstanceNorm,
    LearnedMaskGlobalDynamic,
    RandomReference,
    ReleasedLocalDynamic,
    SharedKernel,
    SoftmaxOverPositions,
    SpatialAttention,
    ZeroedForeground,
    ZeroReference,
)
from hdnet_lib.peers.base import Peer
from hdnet_lib.peers.systems import PEERS
from hdnet_lib.utils.files import first_line

Network = HDNet | Peer
"""What is called with composite and mask, and gives the whole image: see :meth:`HDNet.forward`."""
PICKLED = (".pth", ".pt", ".ckpt", ".tar", ".pkl")
"""Endings of files that PyTorch writes with pickle."""
WEIGHTS = Path(__file__).parent / "weights"
ZOO_SCORES = WEIGHTS / "zoo_scores.csv.gz"
"""Scores of every run of the zoo, all seeds, on the validation photos: a table of
:func:`~hdnet_lib.evaluation.scoring.evaluate`, whose settings lie next to it. Of each entry one seed's weights ship."""

LOCAL_DYNAMICS: dict[str, type[LocalDynamic]] = {
    "paper": StreamingLocalDynamic,
    "released": ReleasedLocalDynamic,
    "dot": DotProduct,
    "zeroed": ZeroedForeground,
    "positions": SoftmaxOverPositions,
    "random": RandomReference,
    "zero": ZeroReference,
}
"""Formulations of LD: the paper's; the released one and three of its divergences alone; two controls."""
DECODER_MODULES: dict[str | None, type[nn.Module] | None] = {
    "mgd": GlobalDynamic,
    "mgd-constant": ConstantKernels,
    "mgd-one": SharedKernel,
    "sa": SpatialAttention,
    None: None,
}
"""What follows the last three skip connections: MGD, two controls, Table 3's spatial attention, or nothing."""

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


def list_models() -> dict[str, str]:
    """Names that :func:`create_model` knows, each with its family: the paper's own, or a trunk that several share."""
    return dict.fromkeys(_PRESETS, "HDNet") | {name: peer.family for name, peer in PEERS.items()}


def create_model(name: str, **overrides) -> Network:
    """Build a model with fresh random weights.

    >>> model = create_model("hdnet-lite", k=3)
    >>> sum(parameter.numel() for parameter in model.parameters())
    652663

    Args:
        name: one of :func:`list_models`: "hdnet" (width 32), "hdnet-lite" (width 8), "hdnet-nano"
            (width 2, for tests), or a row of Table 3 at width 32; or a system that the paper compares with or the like,
            such as "rainnet", or "issam" for iS2AM.
        **overrides: for the other systems the arguments of their class in ``hdnet_lib.peers``. For HDNet: ``width``;
            ``k`` of LD; ``local_dynamic``, one of :data:`LOCAL_DYNAMICS`; ``use_local_dynamic``, False for a network
            without LD (a row without LD accepts the two before and has no use for them); ``decoder_module``, one of
            :data:`DECODER_MODULES`; ``learned_mask``, True for HDNet*, whose MGDs predict their mask; ``use_rain``,
            False for a control with plain instance norm in the decoder.

    Raises:
        ValueError: the name or an argument is unknown or out of range.
    """
    if name not in list_models():
        raise ValueError(f"there is no model called {name!r}, only {', '.join(list_models())}.")
    build: Callable[..., Network] = partial(_build, **_PRESETS[name]) if name in _PRESETS else PEERS[name].network
    try:
        signature(build).bind(**overrides)
        if name in PEERS:
            _check_arguments(build, overrides)
        return build(**overrides)
    except TypeError as error:
        raise ValueError(f"create_model({name!r}): {error}.") from None


def _check_arguments(build: Callable[..., Network], overrides: dict) -> None:
    """The numbers that another system's class takes, by their annotations."""
    for argument, value in overrides.items():
        kind, least = signature(build).parameters[argument].annotation, {"residuals": 0, "lattice": 2}.get(argument, 1)
        if kind is float:
            if not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"{argument} must be a number above 0, not {value!r}.")
        elif not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{argument} must be a whole number of at least {least}, not {value!r}.")
        if argument == "low" and value % 16:
            raise ValueError(f"low must be a multiple of 16, not {value}.")


def _build(
    width: int,
    k: int = 1,
    local_dynamic: str = "paper",
    use_local_dynamic: bool = True,
    decoder_module: str | None = "mgd",
    learned_mask: bool = False,
    use_rain: bool = True,
) -> HDNet:
    if local_dynamic not in LOCAL_DYNAMICS:
        raise ValueError(f"local_dynamic must be one of {', '.join(LOCAL_DYNAMICS)}, not {local_dynamic!r}.")
    if decoder_module not in DECODER_MODULES:
        raise ValueError(
            f"decoder_module must be one of {', '.join(map(str, DECODER_MODULES))}, not {decoder_module!r}."
        )
    module = DECODER_MODULES[decoder_module]
    if learned_mask:
        if module is not GlobalDynamic:
            raise ValueError("learned_mask needs decoder_module='mgd': only the MGDs use a learned mask.")
        module = LearnedMaskGlobalDynamic
    ld = LOCAL_DYNAMICS[local_dynamic]
    if not use_local_dynamic:
        ld(1, k)  # refuses a wrong K there, too
    return HDNet(width, k, ld if use_local_dynamic else None, module, RAIN if use_rain else InstanceNorm)


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
    """Data, budget and seed in a sentence; ``docs/weights.md`` tells the rest."""


def list_pretrained() -> dict[str, Pretrained]:
    """The weights that are here, by name, with what each was trained on.

    Those of the comparisons, in ``weights/zoo``, come with the repository and not with the installed package.
    """
    index = json.loads((WEIGHTS / "index.json").read_text())
    entries = {name: Pretrained(**entry) for name, entry in index.items()}
    return {name: entry for name, entry in entries.items() if (WEIGHTS / entry.file).is_file()}


def load_pretrained(name: str = "hdnet-lite") -> Network:
    """Build a model with weights that come with the package, in evaluation mode.

    The file is safetensors, so nothing is unpickled, and its sha256 is checked first.

    Raises:
        ValueError: there are no such weights, or the file is not the one that was shipped.
    """
    shipped = list_pretrained()
    if name not in shipped:
        raise ValueError(
            f"no weights for {name!r} are here, only for {', '.join(shipped)}; the repository has more than the "
            "package."
        )
    entry = shipped[name]
    path = WEIGHTS / entry.file
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
        raise ValueError(f"the weights file {entry.file} is not the one that was shipped: its sha256 differs.")
    model = create_model(entry.model, **entry.overrides)
    model.load_state_dict(load_file(path))
    return model.eval()


def load_weights(path: str | Path) -> Network:
    """Build a model with weights that ``hdnet train`` wrote, in evaluation mode; nothing is unpickled.

    Raises:
        ValueError: the file cannot be read, does not say which model it belongs to, or would have to be unpickled.
    """
    if Path(path).suffix in PICKLED:
        raise ValueError(
            f"{path}: opening such a file can run code that it holds, so it is not opened; weights of the authors' "
            "code are taken in Python by hdnet_lib.load_released_state_dict(torch.load(path, weights_only=True)), "
            "those of another system with its name after them."
        )
    try:
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
        name, overrides = config["model"], config.get("overrides", {})
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path}: the file does not name its model, so it was not written by `hdnet train`.") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: the weights cannot be read: {first_line(error)}.") from None
    model = create_model(name, **overrides)
    load_state(model, path)
    return model.eval()


def load_state(model: nn.Module, path: str | Path) -> None:
    """Load weights (safetensors) into a model.

    Raises:
        ValueError: the file cannot be read, or its tensors are not those of the model.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: these weights do not fit the model: {first_line(error)}.") from None
