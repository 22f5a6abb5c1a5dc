"""Weights trained with the code of the other systems' authors: their names of tensors, and widths from the shapes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Rules = dict[str, str | Callable[[re.Match], str]]
"""Pattern of one of our names -> the published one; the first that fits the beginning is taken."""


def _nested(prefix: str) -> Rules:
    """The U-Net of DoveNet and BargainNet, whose blocks hold one another."""

    def block(level: int) -> str:
        return f"{prefix}model.model.1" + ".model.3" * (level - 1)

    return {
        r"unet\.down\.0": f"{prefix}model.model.0",
        r"unet\.up\.0": f"{prefix}model.model.3",
        r"unet\.up\.7": f"{block(7)}.model.3",
        r"unet\.up_norms\.7": f"{block(7)}.model.4",
        r"unet\.down\.(\d)": lambda match: f"{block(int(match[1]))}.model.1",
        r"unet\.down_norms\.(\d)": lambda match: f"{block(int(match[1]))}.model.2",
        r"unet\.up\.(\d)": lambda match: f"{block(int(match[1]))}.model.5",
        r"unet\.up_norms\.(\d)": lambda match: f"{block(int(match[1]))}.model.6",
        r"unet\.gates\.(\d)\.gate": lambda match: f"{block(int(match[1]))}.attention.0",
    }


def _s2am() -> Rules:
    def block(match: re.Match) -> str:
        return "model.model" + ".sub.model" * int(match[1])

    gates = {"background": "background", "foreground": "spliced", "mix": "mixed"}
    layers = {"0": "rconv1", "1": "rbn1", "3": "rconv2", "4": "rbn2"}
    return {
        r"unet\.down\.0": "model.model.down.0",
        r"unet\.down\.(\d)": lambda match: f"{block(match)}.down.1",
        r"unet\.down_norms\.(\d)": lambda match: f"{block(match)}.down.2",
        r"unet\.up\.(\d)": lambda match: f"{block(match)}.up.1",
        r"unet\.up_norms\.(\d)": lambda match: f"{block(match)}.up.2",
        r"unet\.gates\.(\d)\.learned\.(\d)": lambda match: f"{block(match)}.attention.connection.{layers[match[2]]}",
        r"unet\.gates\.(\d)\.(\w+)\.layers": lambda match: f"{block(match)}.attention.{gates[match[2]]}_attention.fc",
    }


def _rainnet() -> Rules:
    def inner(level: int) -> str:
        return "unet_block" + ".submodule" * (level - 4)

    return {
        r"unet\.down\.0": "model_layer0",
        r"unet\.down\.([123])": r"model_layer\1.1",
        r"unet\.down\.7": f"{inner(7)}.up.1",
        r"unet\.down\.(\d)": lambda match: f"{inner(int(match[1]))}.down.1",
        r"unet\.up\.0": "model_out.1",
        r"unet\.up\.([123])": lambda match: f"model_layer{14 - int(match[1])}.1",
        r"unet\.up\.7": f"{inner(7)}.up.3",
        r"unet\.up\.(\d)": lambda match: f"{inner(int(match[1]))}.up.1",
        r"unet\.up_norms\.([123])": lambda match: f"model_layer{14 - int(match[1])}norm",
        r"unet\.up_norms\.(\d)": lambda match: f"{inner(int(match[1]))}.upnorm",
        r"unet\.gates\.(\d)\.gate": lambda match: f"model_layer{14 - int(match[1])}att.0",
    }


_PARTS = {"conv": "0", "norm": "1"}


def _encoder_block(match: re.Match) -> str:
    return f"encoder.{'blocks_connected.' if int(match[1]) > 1 else ''}block{match[1]}"


_HEADS: Rules = {r"blend": "decoder.conv_attention", r"rgb": "decoder.to_rgb"}
_IDIH: Rules = _HEADS | {
    r"encoder\.(\d)\.(conv|norm)": lambda match: f"{_encoder_block(match)}.block.{_PARTS[match[2]]}",
    r"decoder\.(\d)\.(conv|norm)": lambda match: f"decoder.deconv_blocks.{match[1]}.block.{_PARTS[match[2]]}",
}
_LEARNED = {"0": "0.block.0", "1": "0.block.1", "3": "1.block.0", "4": "1.block.1"}
_ISSAM: Rules = _HEADS | {
    r"encoder\.(\d)\.(\d)\.(conv|norm)": lambda match: (
        f"{_encoder_block(match)}.convs.block.{match[2]}.block.{_PARTS[match[3]]}"
    ),
    r"decoder\.(\d)\.up\.conv": r"decoder.up_blocks.\1.upconv.1.block.0",
    r"decoder\.(\d)\.convs\.(\d)\.(conv|norm)": lambda match: (
        f"decoder.up_blocks.{match[1]}.convs.block.{match[2]}.block.{_PARTS[match[3]]}"
    ),
    r"decoder\.(\d)\.attention\.learned\.(\d)": lambda match: (
        f"decoder.up_blocks.{match[1]}.attention.learning_block.{_LEARNED[match[2]]}"
    ),
    r"decoder\.(\d)\.attention\.(\w+)\.layers": r"decoder.up_blocks.\1.attention.\2_gate.attention_transform",
}
_VIT: Rules = {
    r"embedding": "encoder.patch_to_embedding.1",
    r"transformer": "encoder.transformer_enc",
    r"decoder": "encoder.dec.0",
    r"transform": "get_params",
}
_BARGAINNET: Rules = _nested("G.") | {
    r"extractor\.convolutions\.(\d)": lambda match: f"E.conv{int(match[1]) + 1}f",
    r"extractor\.norms\.(\d)": lambda match: f"E.norm{int(match[1]) + 2}f",
    r"extractor\.code": "E.convs",
    r"weight": "G.weight",
}


_EFFICIENTNET = {
    "expand": "_expand_conv", "expand_norm": "_bn0", "depthwise": "_depthwise_conv", "depthwise_norm": "_bn1",
    "reduce": "_se_reduce", "excite": "_se_expand", "project": "_project_conv", "project_norm": "_bn2",
}  # fmt: skip
_HARMONIZER: Rules = {
    r"stems\.0": "backbone._conv_fg",
    r"stems\.1": "backbone._conv_bg",
    r"stem_norms\.0": "backbone._bn_fg",
    r"stem_norms\.1": "backbone._bn_bg",
    r"blocks\.(\d+)\.(\w+)": lambda match: f"backbone._blocks.{match[1]}.{_EFFICIENTNET[match[2]]}",
    r"head_norm": "backbone._bn1",
    r"head": "backbone._conv_head",
    r"common": "regressor.f",
    r"first": "regressor.g",
    r"cascade\.(\d)": r"regressor.headers.\1",
}


_PIXELS: Rules = {rf"pixels\.{pattern}": name for pattern, name in _ISSAM.items()}
_CDTNET: Rules = _PIXELS | {
    r"colors\.tables\.(\d)": r"lut.LUT\1.LUT",
    r"colors\.conv": "lut.classifier.conv",
    r"colors\.weights": "lut.classifier.fc",
    r"refine": "refine.block",
    r"blend": "refine.conv_attention",
    r"rgb": "refine.to_rgb",
}
_STYLE = {
    "style": "to_style.weight.weight", "style_bias": "to_style.bias", "weight": "conv.weight.weight", "bias": "bias"
}  # fmt: skip
_DUCONET: Rules = _ISSAM | {
    r"encoders\.(\d)\.code": lambda match: f"{'lab'[int(match[1])]}_encoder.map2w.net",
    r"encoders\.(\d)\.encoder\.(\d)\.(\d)\.(conv|norm)": lambda match: (
        f"{'lab'[int(match[1])]}_encoder.lab_encoder.{'blocks_connected.' if int(match[2]) > 1 else ''}"
        f"block{match[2]}.convs.block.{match[3]}.block.{_PARTS[match[4]]}"
    ),
    r"controls\.(\d)\.mix": r"decoder.up_blocks.\1.control_module.G_weight",
    r"controls\.(\d)\.styles\.(\d)\.(\d)\.(\w+)": lambda match: (
        f"decoder.up_blocks.{match[1]}.control_module.{'lab'[int(match[2])]}_styleblock."
        f"style_block{int(match[3]) + 1}.{_STYLE[match[4]]}"
    ),
}


def _decoders(first: int) -> Rules:
    """The published indices of a decoder's three blocks: ``first``, two later, and three later."""
    index = {"1": first, "3": first + 2, "4": first + 3}
    return {r"decode_(\w+)\.(\d)": lambda match: f"{match[1]}_dec.model.{index[match[2]]}"}


_HALVES = {"first": "0", "second": "1"}
_INTRINSIC: Rules = _decoders(1) | {
    r"(reflectance|illumination)\.([012])": r"\1_enc.model.\2",
    r"reflectance\.(\d)\.(first|second)": lambda match: (
        f"reflectance_enc.model.3.model.{int(match[1]) - 3}.model.{_HALVES[match[2]]}"
    ),
    r"lights\.encoder": "lighting.model",
    r"lights\.code": "lighting.light_mlp.fc",
    r"relight\.(\d)\.convolutions\.(\d)\.conv": lambda match: (
        f"lightingRes.resblocks.{match[1]}.conv_{int(match[2]) + 1}"
    ),
    r"relight\.(\d)\.relights\.(\d)\.(l|c)\w+": lambda match: (
        f"lightingRes.resblocks.{match[1]}.lt_{int(match[2]) + 1}.{'light_mlp.fc' if match[3] == 'l' else 'rgb_model'}"
    ),
    r"relight\.(\d)\.norm": r"lightingRes.resblocks.\1.norm",
    r"scores\.encoder": "ifm.model",
    r"scores\.residuals\.(\d)\.(first|second)": lambda match: f"ifm.model.4.model.{match[1]}.model.{_HALVES[match[2]]}",
    r"scores\.last": "ifm.model.5",
    r"reconstruct_(\w+)\.(\d)\.join": r"\1Rec.resblocks.\2.harmonyRecConv",
}
_DHT: Rules = _decoders(2) | {
    r"encoder": "reflectance_enc.model",
    r"patches": "light_generator.patch_embedding.0",
    r"lights": "light_generator.light_embed.weight",
    r"reflectance": "reflectance_transformer_enc.encoder.layers",
    r"background": "light_generator.transformer_enc.encoder.layers",
    r"gather_norm": "light_generator.transformer_dec.decoder.norm",
    r"gather": "light_generator.transformer_dec.decoder.layers",
    r"render_norm": "illumination_render.decoder.norm",
    r"render": "illumination_render.decoder.layers",
}


_INR_DECODER = "backbone.model.decoder."


def _hrnet() -> Rules:
    """The backbone of INR."""
    start = "backbone.backbone.hrnet."
    context = f"{start}ocr_distri_head."

    def layer(number: str, part: str) -> str:
        return f"{('conv', 'bn')[int(part)]}{int(number) + 1}"

    def stage(match: re.Match) -> str:
        return f"{start}stage{int(match[1]) + 2}.{match[2]}."

    return {
        r"hrnet\.mask_stem": "backbone.mask_conv.0",
        r"hrnet\.mask_scale": "backbone.mask_conv.1.scale",
        r"hrnet\.stem\.(\d)\.(\d)": lambda match: start + layer(match[1], match[2]),
        r"hrnet\.first\.(\d)\.layers\.(\d)\.(\d)": lambda match: (
            f"{start}layer1.{match[1]}.{layer(match[2], match[3])}"
        ),
        r"hrnet\.first\.(\d)\.shortcut": rf"{start}layer1.\1.downsample",
        r"hrnet\.finest": f"{start}transition1.0",
        r"hrnet\.coarser\.(\d)": lambda match: f"{start}transition{int(match[1]) + 1}.{int(match[1]) + 1}.0",
        r"hrnet\.stages\.(\d)\.(\d)\.branches\.(\d\.\d)\.layers\.(\d)\.(\d)": lambda match: (
            f"{stage(match)}branches.{match[3]}.{layer(match[4], match[5])}"
        ),
        r"hrnet\.stages\.(\d)\.(\d)\.fuse": lambda match: f"{stage(match)}fuse_layers",
        r"hrnet\.reduce": f"{start}conv3x3_ocr",
        r"hrnet\.context\.join\.(\d)": lambda match: f"{context}conv_bn_dropout.{('0', '1.0')[int(match[1])]}",
        r"hrnet\.context\.(pixel|object)\.(\d)\.(\d)": lambda match: (
            f"{context}object_context_block.f_{match[1]}.{2 * int(match[2]) + int(match[3])}{'.0' * int(match[3])}"
        ),
        r"hrnet\.context\.(down|up)\.(\d)": lambda match: (
            f"{context}object_context_block.f_{match[1]}.{('0', '1.0')[int(match[2])]}"
        ),
    }


_INR: Rules = _hrnet() | {
    r"encoder\.(\d)\.(conv|norm)": lambda match: f"backbone.model.{_encoder_block(match)}.block.{_PARTS[match[2]]}",
    r"plain\.(conv|norm)": lambda match: (
        f"backbone.model.encoder.blocks_connected.block2_decode.block.{_PARTS[match[1]]}"
    ),
    r"decoder\.(\d)\.(conv|norm)": lambda match: f"{_INR_DECODER}deconv_blocks.{match[1]}.block.{_PARTS[match[2]]}",
    r"positions\.sines": f"{_INR_DECODER}INR_encoding.predict_embed.ffm",
    r"positions\.table": f"{_INR_DECODER}INR_encoding.fourier_embed.input",
    r"levels\.(\d)\.predict": lambda match: (
        f"{_INR_DECODER}content_mlp_blocks.block{2 - int(match[1])}.cont_extraction_net"
    ),
    r"levels\.(\d)\.layers\.weights": lambda match: (
        f"{_INR_DECODER}content_mlp_blocks.block{2 - int(match[1])}.basic_params"
    ),
    r"compress": f"{_INR_DECODER}appearance_mlps.compress_layer",
    r"colors\.weights": f"{_INR_DECODER}appearance_mlps.basic_params",
    r"predict_colors": f"{_INR_DECODER}appearance_mlps.app_extraction_net",
    r"predict_table": f"{_INR_DECODER}lut_transform.transform_layers",
}


def _inr_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    hrnet, colors = "backbone.backbone.hrnet.", f"{_INR_DECODER}appearance_mlps."
    features = state[f"{colors}basic_params.0"].shape[-1]
    count = state[f"{colors}app_extraction_net.4.bias"].shape[0]
    return {
        "width": state["backbone.model.encoder.block0.block.0.weight"].shape[0],
        "depth": sum(bool(re.fullmatch(r"backbone\.model\.encoder\.(.*\.)?block\d\.block\.0\.bias", n)) for n in state),
        "hidden": state[f"{colors}app_extraction_net.0.weight"].shape[0],
        "features": features,
        # Three layers of f to f, and one to the three colours: matrices of rank r, and biases.
        "rank": (count - 3 * features - 3) // (7 * features + 3),
        "lattice": round((state[f"{_INR_DECODER}lut_transform.transform_layers.0.bias"].shape[0] / 3) ** (1 / 3)),
        "backbone": state[f"{hrnet}transition1.0.0.weight"].shape[0],
        "blocks": sum(bool(re.fullmatch(rf"{hrnet}layer1\.\d\.conv1\.weight", name)) for name in state),
        "context": state[f"{hrnet}ocr_distri_head.object_context_block.f_down.0.weight"].shape[0],
    }


def _s2crnet(trunk: str) -> Rules:
    return {
        r"trunk": trunk,
        r"heads\.(\d)\.(f|b)\w+": lambda match: f"fusion.cr{int(match[1]) + 1}.fc_{match[2]}_1.fc1",
    }


@dataclass(frozen=True)
class Released:
    """How the authors' code of a system names its tensors."""

    rules: Rules
    arguments: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    """The network's size, from the shapes."""
    ignored: str = r"$^"
    """Pattern of published tensors that are constants, or that the code holds and does not use."""

    def name(self, own: str) -> str:
        """The published name of one of our tensors."""
        for pattern, replacement in self.rules.items():
            if match := re.match(pattern, own):
                start = match.expand(replacement) if isinstance(replacement, str) else replacement(match)
                return start + own[match.end() :]
        raise KeyError(own)


def _widths(**names: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """Argument of the network = published tensor whose first dimension it is."""
    return lambda state: {argument: state[name].shape[0] for argument, name in names.items()}


_ISSAM_WIDTH = _widths(width="encoder.block0.convs.block.0.block.0.weight")
_IDIH_WIDTH = _widths(width="encoder.block0.block.0.weight")
_BLUR = r".*\.(mask_blurring|gaussianMask)\."
_LABELS = r"fusion\.cr\d\.fc_(f_)?label"

RELEASED = {
    "rainnet": Released(_rainnet(), _widths(width="model_layer0.weight")),
    "dovenet": Released(_nested(""), _widths(width="model.model.0.weight")),
    "bargainnet": Released(
        _BARGAINNET,
        _widths(width="G.model.model.0.weight", extractor_width="E.conv1f.weight", code="E.convs.weight"),
    ),
    "s2am": Released(_s2am(), _widths(width="model.model.down.0.weight"), _BLUR),
    "dih": Released(_IDIH, _IDIH_WIDTH),
    "idih": Released(_IDIH, _IDIH_WIDTH),
    "issam": Released(_ISSAM, _ISSAM_WIDTH, _BLUR),
    "pctnet": Released(_ISSAM | {r"transform": "get_params"}, _ISSAM_WIDTH, rf"{_BLUR}|decoder\.to_rgb"),
    "pctnet-vit": Released(
        _VIT,
        lambda state: {
            "width": state["encoder.patch_to_embedding.1.weight"].shape[0],
            "layers": sum(name.endswith("self_attn.in_proj_weight") for name in state),
        },
    ),
    "s2crnet-sn": Released(_s2crnet("squeezenet1_1"), lambda state: {}, _LABELS),
    "s2crnet-vgg": Released(_s2crnet("model"), _widths(width="model.0.weight"), _LABELS),
    "cdtnet": Released(
        _CDTNET,
        lambda state: _ISSAM_WIDTH(state) | {"lattice": state["lut.LUT0.LUT"].shape[1]},
        _BLUR,
    ),
    "dccf": Released(
        _ISSAM | {r"filters": "get_filters", r"refine": "get_refine"},
        _ISSAM_WIDTH,
        rf"{_BLUR}|decoder\.to_rgb",
    ),
    "duconet": Released(
        _DUCONET,
        lambda state: _ISSAM_WIDTH(state) | {"code": state["l_encoder.map2w.net.2.weight"].shape[0]},
        rf"{_BLUR}|.*\.scale_noise",
    ),
    "intrinsic": Released(
        _INTRINSIC,
        lambda state: {
            "width": state["reflectance_enc.model.0.conv.weight"].shape[0],
            "residuals": sum(name.startswith("ifm.model.4") and name.endswith("0.conv.bias") for name in state),
        },
    ),
    "dht": Released(
        _DHT,
        lambda state: {
            "width": state["reflectance_enc.model.0.conv.weight"].shape[0],
            "lights": state["light_generator.light_embed.weight"].shape[0],
            "layers": sum(name.startswith("illumination_render") and name.endswith("norm1.bias") for name in state),
        },
    ),
    "harmonizer": Released(
        _HARMONIZER,
        lambda state: {
            "width": state["backbone._conv_head.weight"].shape[0] / 1280,
            "hidden": state["regressor.g.weight"].shape[0],
        },
    ),
    "inr": Released(_INR, _inr_arguments),
}
"""By the names of :data:`~hdnet_lib.peers.systems.PEERS`."""


def read_arguments(state: Mapping[str, Tensor], system: str) -> dict[str, Any]:
    """The size of the network that published weights belong to, as arguments of its class.

    Raises:
        ValueError: the system is unknown, or the weights are not its.
    """
    if system not in RELEASED:
        raise ValueError(f"there is no system called {system!r}, only hdnet, {', '.join(RELEASED)}.")
    try:
        return RELEASED[system].arguments(state)
    except KeyError as error:
        raise ValueError(f"This is not a state dict of {system}: it has no {error}.") from None


def load_published(model: nn.Module, state: Mapping[str, Tensor], system: str) -> None:
    """Load published weights into a network of :func:`read_arguments`' size.

    Raises:
        ValueError: a tensor is missing, unknown or of the wrong shape.
    """
    released = RELEASED[system]
    names = {own: released.name(own) for own in model.state_dict()}
    if missing := [name for name in names.values() if name not in state]:
        raise ValueError(f"The state dict lacks {len(missing)} tensors of {system}, among them {missing[0]!r}.")
    known = set(names.values())
    if unknown := [name for name in state if name not in known and not re.match(released.ignored, name)]:
        raise ValueError(f"{system} has no tensor called {unknown[0]!r}; was this trained with another network?")
    for own, tensor in model.state_dict().items():
        shape = state[names[own]].shape
        if shape != tensor.shape and shape != (1,) * (len(shape) - tensor.ndim) + tensor.shape:
            raise ValueError(f"{names[own]!r} has the shape {tuple(shape)}, not {tuple(tensor.shape)}.")
    model.load_state_dict({own: state[names[own]].reshape(tensor.shape) for own, tensor in model.state_dict().items()})
