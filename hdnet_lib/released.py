"""Weights trained with the authors' code."""

from collections.abc import Mapping

from torch import Tensor

from hdnet_lib.peers.released import load_published, read_arguments
from hdnet_lib.registry import Network, create_model


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


def load_released_state_dict(state_dict: Mapping[str, Tensor], system: str = "hdnet", **overrides) -> Network:
    """Turn weights trained with the authors' code into a model that computes what that code computes.

    The width is read from the tensors. In HDNet LD is the released one, and the guide convolutions, which the
    released code holds but never calls, are left out. Read a ``.pth`` file with
    ``torch.load(path, weights_only=True)``, which runs no code from it. S2CRNet is the variant without semantic
    labels: the layers for labels are left out. BargainNet's generator and extractor are expected in one mapping, their
    names with "G." and "E." before them.

    Args:
        state_dict: the released keys ("model_layer0.weight", ...), with or without the prefix
            "module." of DataParallel.
        system: "hdnet", or the name of a system that the paper compares with, as :func:`list_models` has it.
        **overrides: arguments of that system's network which no shape tells, such as ``low``.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: a tensor is missing, unknown or of the wrong shape; the sentence names it.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise ValueError(f"A state dict maps names to tensors; this is a {type(state_dict).__name__}.")
    released = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if wrong := [key for key, value in released.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"A state dict maps names to tensors; {wrong[0]!r} is a {type(released[wrong[0]]).__name__}.")
    if system != "hdnet":
        peer = create_model(system, **{**read_arguments(released, system), **overrides})
        load_published(peer, released, system)
        return peer.eval()
    if overrides:
        raise ValueError(f"the released HDNet takes no arguments, such as {next(iter(overrides))}.")
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
