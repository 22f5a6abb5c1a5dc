"""The other systems compute what their authors' code computes, and have its size."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hdnet_lib import create_model, harmonize, list_models, load_released_state_dict
from hdnet_lib.inference.benchmark import benchmark
from hdnet_lib.inference.onnx import export_onnx
from hdnet_lib.model.architecture import count_flops
from hdnet_lib.model.hdnet import paste
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.peers import losses
from hdnet_lib.peers.cdtnet import look_up
from hdnet_lib.peers.discriminator import RegionDiscriminator, gradient_penalty, hinge_loss, realism_loss
from hdnet_lib.peers.harmonizer import FILTERS, apply_filters
from hdnet_lib.peers.hsv import hsv_to_rgb, rgb_to_hsv
from hdnet_lib.peers.ranges import denormalize, from_unit, normalize, to_unit
from hdnet_lib.peers.released import RELEASED
from hdnet_lib.peers.s2crnet import PIECES, apply_curves, foreground_crop
from hdnet_lib.peers.systems import PEERS
from hdnet_lib.peers.unet import DoveNet
from hdnet_lib.training.adversary import Adversary
from hdnet_lib.training.loop import compile_network

FILES = Path(__file__).parent / "data" / "peers"
"""Random weights of narrow networks, and what the public code makes of an input; three systems, the others lie where
``HDNET_PARITY`` says."""

# Parameters, and GFLOP of one image of 256 x 256 pixels, counted on the public code. (PCT-Net's ViT has 39.21 without
# the products of its attention, which the counter does not see where they are fused.)
SIZES = {
    "rainnet": (54_759_043, 13.71), "dovenet": (54_755_587, 13.74), "bargainnet": (58_695_700, 16.25),
    "s2am": (67_003_051, 70.12), "dih": (8_301_507, 3.31), "idih": (8_301_284, 3.31), "issam": (2_185_340, 29.77),
    # Three tensors of iS2AM's head to RGB that PCT-Net and DCCF store and do not use: 99 parameters.
    "pctnet": (2_185_736 - 99, 29.81), "dccf": (2_186_462 - 99, 29.90), "cdtnet": (2_744_400, 37.71),
    # Six numbers for a noise that is never added, in each of three modules.
    "duconet": (7_630_487 - 18, 72.39), "pctnet-vit": (4_809_896, 193.83), "s2crnet-sn": (919_296, 1.21),
    "s2crnet-vgg": (15_108_672, 80.18), "harmonizer": (4_726_882, 1.02), "intrinsic": (40_863_086, 427.11),
    "dht": (26_515_654, 539.79), "inr": (38_205_139, 56.85),
}  # fmt: skip

# Our module -> activation in the file.
ACTIVATIONS = {
    "rainnet": {"unet.up_norms.3": "model_layer11norm", "unet.up_norms.4": "unet_block.upnorm"},
    "dovenet": {"unet.gates.3.gate": "model.model.1.model.3.model.3.attention"},
    "bargainnet": {"extractor.code": "E"},
    "s2am": {"unet.gates.1": "model.model.sub.model.attention"},
    "dih": {"decoder.0": "decoder.deconv_blocks.0", "encoder.4": "encoder.blocks_connected.block4"},
    "idih": {"decoder.0": "decoder.deconv_blocks.0", "blend": "decoder.conv_attention"},
    "issam": {"decoder.2.attention": "decoder.up_blocks.2.attention", "decoder.0.up": "decoder.up_blocks.0.upconv"},
    "pctnet": {"transform": "get_params"},
    "pctnet-vit": {"transform": "get_params"},
    "cdtnet": {"colors.weights": "lut.classifier"},
    "dccf": {"filters": "filters", "refine": "refine_filters"},
    "duconet": {"encoders.0": "l_encoder", "controls.1": "decoder.up_blocks.1.control_module"},
    "s2crnet-sn": {"trunk": "squeezenet1_1"},
    "s2crnet-vgg": {"trunk": "model"},
    "harmonizer": {"blocks.3": "backbone._blocks.3"},
    "intrinsic": {
        "relight.0.relights.0": "lightingRes.resblocks.0.lt_1",
        "reconstruct_reflectance.0": "reflectanceRec.resblocks.0",
        "scores": "ifm",
        "lights": "lighting",
    },
    "dht": {"reflectance.0": "reflectance_transformer_enc.encoder.layers.0"},
    "inr": {
        "hrnet": "backbone.backbone",
        "decoder.2": "backbone.model.decoder.deconv_blocks.2",
        "predict_colors": "backbone.model.decoder.appearance_mlps.app_extraction_net",
    },
}
# INR's maps go to 600, and its small networks amplify the rounding: a difference of 1e-4 in their features gives one of
# 1e-3 in the image. All others are within 1e-4, their activations within 1e-5.
LOOSE = {"inr": (2e-3, 2e-4)}


def parity_file(system):
    """The tensors of a system, or a skipped test."""
    folders = (FILES, Path(os.environ.get("HDNET_PARITY", FILES)))
    for folder in folders:
        if (folder / f"{system}.safetensors").is_file():
            return load_file(folder / f"{system}.safetensors")
    pytest.skip(f"{system}.safetensors is not here; HDNET_PARITY names the folder that has it")


def published(tensors):
    """The published weights."""
    return {name.removeprefix("weights."): value for name, value in tensors.items() if name.startswith("weights.")}


def run(model, system, tensors):
    """The result in [-1, 1], on the small images that the file gives where the public code takes two sizes."""
    unit, mask = tensors["input"].float(), tensors["mask"].float()
    if system in ("pctnet", "dccf"):
        return model.render(unit, tensors["low_input"].float(), tensors["low_mask"].float())
    if system == "pctnet-vit":
        return model.render(unit, mask, tensors["low_input"].float(), tensors["low_mask"].float())
    if system.startswith("s2crnet"):
        foreground = tensors["fore"].float()
        return model.render(unit, mask, foreground[:, :3] * foreground[:, 3:], unit * (1 - mask))
    if system == "duconet":
        return model.render(unit, mask, tensors["lab"].float())
    return model.predict(from_unit(unit), mask)


def expected(system, tensors):
    """What the public code gave, in [-1, 1]."""
    if system.startswith(("s2crnet", "harmonizer")):  # the file's output is not pasted, and six arguments
        return from_unit(tensors["harmonized"])
    if system in ("dih", "idih", "issam", "pctnet", "dccf", "duconet"):
        return from_unit(denormalize(tensors["output"]))
    signed = system in ("rainnet", "dovenet", "bargainnet", "inr")
    return tensors["output"] if signed else from_unit(tensors["output"])


@pytest.mark.parametrize("system", PEERS)
@torch.inference_mode()
def test_outputs_and_activations_are_those_of_the_public_code(system):
    tensors = parity_file(system)
    model = load_released_state_dict(published(tensors), system, **({"low": 64} if system == "cdtnet" else {}))
    assert not model.training
    seen = {}
    for own, name in ACTIVATIONS[system].items():
        model.get_submodule(own).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, output)
        )
    near, nearer = LOOSE.get(system, (1e-4, 1e-5))
    torch.testing.assert_close(run(model, system, tensors), expected(system, tensors), atol=near, rtol=0)
    for name, output in seen.items():
        wanted = tensors[f"act.{name}" if f"act.{name}" in tensors else f"act.{name}.out"].float()
        output = output[0] if isinstance(output, tuple) else output
        if system == "dht":
            output = output.transpose(0, 1)
        if system == "dovenet":
            output = output.sigmoid()
        torch.testing.assert_close(output.reshape(wanted.shape), wanted, atol=nearer, rtol=0)
    assert seen.keys() == set(ACTIVATIONS[system].values())


@torch.inference_mode()
def test_inrs_levels_and_table_are_those_of_the_public_code():
    tensors = parity_file("inr")
    model = load_released_state_dict(published(tensors), "inr")
    composite, mask = from_unit(tensors["input"].float()), tensors["mask"].float()
    maps, predicted = model.encode(composite, mask)
    for image, level in zip(model.results(composite, mask, maps, predicted)[:2], ("0", "1"), strict=True):
        torch.testing.assert_close(image, tensors[f"act.harm.{level}"], atol=1e-3, rtol=0)
    table, changed = model.table(composite, predicted)
    torch.testing.assert_close(table, tensors["act.lut"], atol=1e-5, rtol=0)
    torch.testing.assert_close(from_unit(changed), tensors["act.lut_image"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("system", [*PEERS, "hdnet", "hdnet-lite"])
@torch.inference_mode()
@pytest.mark.slow
def test_parameters_and_arithmetic_are_those_of_the_public_code(system):
    model = create_model(system).eval()
    parameters, gflop = SIZES.get(system) or {"hdnet": (10_413_487, 57.92), "hdnet-lite": (652_663, 3.78)}[system]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert count_flops(model) / 1e9 == pytest.approx(gflop, abs=0.006)


@pytest.mark.parametrize("system", PEERS)
def test_a_size_that_a_system_cannot_take_gets_one_sentence(system):
    model = create_model(system)
    composite, mask = torch.zeros(1, 3, 100, 260), torch.zeros(1, 1, 100, 260)
    if model.multiple == 1:  # any size will do but a tiny one
        composite, mask = composite[..., :8], mask[..., :8]
    sizes = r"(256|(multiples of \d+ and )?at least \d+( and at most 256)?)"
    with pytest.raises(ValueError, match=rf"^height and width must be {sizes}, and the batch"):
        model(composite, mask)


NARROW_INR = {"width": 8, "depth": 5, "hidden": 16, "features": 8, "backbone": 4, "blocks": 2, "context": 8}


@pytest.mark.parametrize("system", ["pctnet", "dccf", "cdtnet", "s2crnet-sn", "harmonizer", "inr"])
@torch.inference_mode()
def test_systems_that_work_small_take_any_size(system):
    model = create_model(system, **(NARROW_INR if system == "inr" else {"low": 64})).eval()
    composite, mask = torch.rand(1, 3, 91, 133) * 2 - 1, torch.zeros(1, 1, 91, 133)
    mask[..., 20:60, 30:80] = 1
    assert model(composite, mask).shape == composite.shape


def test_overrides_and_names_that_are_wrong_get_one_sentence():
    assert create_model("dovenet", width=8).unet.down[0].out_channels == 8
    with pytest.raises(ValueError, match=r"create_model\('dovenet'\): got an unexpected keyword argument 'k'"):
        create_model("dovenet", k=3)
    for wrong in (0, -1, "8", 4.5, True):
        with pytest.raises(ValueError, match="width must be a whole number of at least 1"):
            create_model("dovenet", width=wrong)
    with pytest.raises(ValueError, match="low must be a multiple of 16, not 50"):
        create_model("pctnet", low=50)
    with pytest.raises(ValueError, match="width must be even here, not 5"):
        create_model("pctnet-vit", width=5)
    with pytest.raises(ValueError, match="width must be a number above 0"):
        create_model("harmonizer", width=0)
    with pytest.raises(ValueError, match="unexpected keyword argument 'width'"):
        create_model("s2crnet-sn", width=4)
    with pytest.raises(ValueError, match="depth must be from 5 to 7, not 8"):
        create_model("inr", depth=8)
    with pytest.raises(ValueError, match="blocks must be one of 2, 4, not 3"):
        create_model("inr", blocks=3)
    with pytest.raises(ValueError, match="must be at least 8"):
        create_model("s2am", width=4)
    with pytest.raises(ValueError, match="no system called 'scs-co'"):
        load_released_state_dict({}, "scs-co")
    state = published(parity_file("issam"))
    with pytest.raises(ValueError, match="not a state dict of dovenet"):
        load_released_state_dict(state, "dovenet")
    with pytest.raises(ValueError, match="unexpected keyword argument 'low'"):
        load_released_state_dict(state, "issam", low=64)
    with pytest.raises(ValueError, match="'more' is a int"):
        load_released_state_dict(state | {"more": 3}, "issam")
    with pytest.raises(ValueError, match="the released HDNet takes no arguments, such as low"):
        load_released_state_dict({}, low=64)
    with pytest.raises(ValueError, match=r"issam has no tensor called 'more'"):
        load_released_state_dict(state | {"more": torch.zeros(1)}, "issam")
    with pytest.raises(ValueError, match=r"lacks 1 tensors of issam, among them 'decoder\.to_rgb\.bias'"):
        load_released_state_dict({k: v for k, v in state.items() if k != "decoder.to_rgb.bias"}, "issam")
    with pytest.raises(ValueError, match=r"'decoder\.to_rgb\.bias' has the shape \(4,\), not \(3,\)"):
        load_released_state_dict(state | {"decoder.to_rgb.bias": torch.zeros(4)}, "issam")


def test_every_system_has_its_published_names_and_a_family():
    assert RELEASED.keys() == PEERS.keys() == SIZES.keys() == ACTIVATIONS.keys()
    assert list_models()["hdnet-lite"] == "HDNet"
    assert {name: family for name, family in list_models().items() if name in PEERS} == {
        name: system.family for name, system in PEERS.items()
    }


def test_curves_are_sums_of_clamped_ramps():
    image, slopes = torch.rand(2, 3, 5, 7), torch.rand(2, 3, PIECES)
    ramps = sum((image - i / PIECES).clamp(0, 1 / PIECES) * slopes[:, :, i, None, None] for i in range(PIECES))
    torch.testing.assert_close(apply_curves(image, slopes), PIECES * ramps / slopes.sum(dim=2)[..., None, None])
    straight = torch.ones(2, 3, PIECES)
    torch.testing.assert_close(apply_curves(image, straight), image)


def test_the_crop_is_the_masks_bounding_box_and_an_empty_mask_gives_black():
    unit, mask = torch.rand(2, 3, 40, 30), torch.zeros(2, 1, 40, 30)
    mask[0, :, 10:20, 5:15] = 1
    crops = foreground_crop(unit, mask, 20)
    wanted = F.interpolate(unit[:1, :, 10:20, 5:15], size=(20, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(crops[:1], wanted)
    assert not crops[1].any()


def test_hsv_goes_there_and_back():
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(hsv_to_rgb(*rgb_to_hsv(image)), image, atol=1e-5, rtol=0)
    hue, saturation, value = rgb_to_hsv(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1))
    assert (hue.item(), saturation.item(), value.item()) == pytest.approx((1 / 12, 1, 1))


def test_an_identity_table_changes_nothing():
    steps = torch.linspace(0, 1, 5)
    table = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")[::-1])[None]
    image = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(look_up(image, table), image, atol=1e-5, rtol=0)


def test_filters_of_argument_zero_change_nothing():
    image = torch.rand(2, 3, 16, 16) * 0.9 + 0.05
    for changed in apply_filters(image, torch.zeros(2, len(FILTERS))):
        torch.testing.assert_close(changed, image, atol=1e-4, rtol=0)


def test_normalized_colours_come_back():
    image = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(denormalize(normalize(image)), image)


def test_a_mask_that_covers_everything_gives_numbers():
    model = create_model("dht", width=16, layers=1).eval()
    result = model(torch.rand(1, 3, 32, 32) * 2 - 1, torch.ones(1, 1, 32, 32))
    assert result.isfinite().all()


NARROW = {
    "s2am": {"width": 8},
    "dht": {"width": 16, "layers": 1},
    "harmonizer": {"width": 0.4, "low": 64},
    "s2crnet-sn": {},
    "inr": NARROW_INR,
}


@pytest.mark.parametrize("system", PEERS)
def test_every_part_gets_a_gradient(system):
    overrides = NARROW.get(system, {"width": 4})
    model = create_model(system, **overrides)
    side = max(model.smallest, 64)
    composite, mask = torch.rand(2, 3, side, side) * 2 - 1, torch.zeros(2, 1, side, side)
    mask[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    model(composite, mask).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    learning = {name.partition(".")[0] for name, grad in gradients.items() if grad is not None and grad.any()}
    without = {name for name, _ in model.named_children()} - learning
    assert without == ({"predict_table"} if system == "inr" else set())  # INR's table is for its own loss alone


def test_losses_are_those_of_the_public_code():
    tensors = {name: value.float() for name, value in parity_file("losses").items()}
    pred, real, mask = tensors["pred"], tensors["real"], tensors["mask"]
    each = [slice(index, index + 1) for index in range(len(pred))]

    def check(name, *values, atol=1e-6):
        wanted = tensors[f"value.{name}"]
        torch.testing.assert_close(torch.stack(values), wanted, atol=atol, rtol=1e-5)

    for a_min in (100, 1000):
        check(f"fn_mse.{a_min}", *(foreground_mse(pred[i], real[i], mask[i], a_min) for i in each))
    check("s2crnet.l1_relative", losses.relative_l1(pred, real, mask))
    outputs, targets = tensors["harmonizer.outputs"][0], tensors["harmonizer.targets"][0]
    check("harmonizer.per_filter", *(losses.filter_loss(outputs[i], targets[i], mask[i]) for i in each), atol=1e-3)
    check("pctnet.smooth", losses.edge_size(pred))
    check("bargainnet.triplets.flat", 0.01 * losses.triplets(tensors["bargainnet.codes"].flatten(2)))
    check("intrinsic.gradient", losses.edge_difference(pred, real))
    check("intrinsic.smooth", losses.bend(pred))
    grey = (2 * pred - 1).mul(torch.tensor(losses.GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    check("intrinsic.dssim_cs", losses.structure_difference(grey + sum(losses.GREY) - 1, real))
    check("dccf.tv", *(losses.variation(pred[i], mask[i]) for i in each))
    check("inr.masked_mse", losses.table_image_mse(pred, real, tensors["soft_mask"]))
    check("inr.regularize_LUT", losses.table_excess(tensors["inr.lut"]))
    for name in ("luminance", "saturation", "hue"):
        wanted = tensors[f"dccf.map.{name}"]
        made = getattr(losses, f"{name}_map")(real).expand_as(wanted)
        torch.testing.assert_close(made, wanted, atol=1e-3, rtol=0)


def our_discriminators_name(name):
    """Of a tensor of the public discriminator: D.conv1 ... is the whole image's stack, D.conv1f ... the regions'."""
    stack = re.match(r"weights\.D\.conv(\d)(f?)\.", name)
    if stack:
        layer = f"{'regions' if stack[2] else 'whole'}.convolutions.{int(stack[1]) - 1}"
    else:
        head = re.match(r"weights\.conv([gl])(\d)\.", name)
        layer = "judge_whole" if head[1] == "g" else f"judge_regions.{2 * (int(head[2]) - 1)}"
    normed = {"weight_orig": "parametrizations.weight.original", "weight_u": "parametrizations.weight.0._u",
              "weight_v": "parametrizations.weight.0._v"}  # fmt: skip
    last = name.rpartition(".")[2]
    return f"{layer}.{normed.get(last, last)}"


def test_the_discriminator_is_that_of_the_public_code():
    """Of its weights the public code made these values of both losses and of the penalty."""
    tensors = {name: value.float() for name, value in parity_file("discriminator").items()}
    discriminator = RegionDiscriminator(width=4).eval()
    discriminator.load_state_dict(
        {our_discriminators_name(name): value for name, value in tensors.items() if name.startswith("weights.")}
    )
    fake, real, mask = (tensors[f"gan.{name}"] for name in ("fake", "real", "mask"))
    penalty = gradient_penalty(discriminator, fake, real, mask, torch.full((1, 1, 1, 1), 0.375))
    for ours, name in (
        (hinge_loss(discriminator, fake, real, mask), "d_hinge"),
        (realism_loss(discriminator, fake, mask), "g"),
        (penalty, "penalty.alpha_0.375"),
    ):
        torch.testing.assert_close(ours.view(1), tensors[f"value.gan.{name}"], atol=1e-5, rtol=1e-5)


def test_the_discriminator_compares_regions_and_learns(monkeypatch):
    torch.manual_seed(0)
    discriminator = RegionDiscriminator(width=4)
    monkeypatch.setattr("hdnet_lib.training.adversary.RegionDiscriminator", lambda: discriminator)
    adversary = Adversary(torch.device("cpu"), 2e-3)
    real, mask = torch.rand(2, 3, 256, 256) * 0.2, torch.zeros(2, 1, 256, 256)
    mask[:, :, 64:192, 64:192] = 1
    fake = real + 0.6 * mask
    frozen = RegionDiscriminator(width=4).eval()
    swapped = frozen(fake, 1 - mask)[1]
    torch.testing.assert_close(frozen(fake, mask)[1], swapped, atol=1e-6, rtol=1e-5)
    image = fake.clone().requires_grad_()
    for _ in range(12):
        judged = adversary(image, mask, real)
    assert realism_loss(discriminator, fake, mask) > realism_loss(discriminator, real, mask) + 0.5
    judged.backward()
    assert image.grad.abs().sum() > 0
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


@pytest.mark.parametrize("system", ["rainnet", "dovenet"])
def test_a_discriminator_sees_the_image_and_adds_to_the_loss(system):
    model, seen = create_model(system, width=2).eval(), []
    assert model.adversarial
    composite, mask = torch.rand(1, 3, 256, 256), torch.zeros(1, 1, 256, 256)
    mask[..., :64] = 1
    real = torch.rand(1, 3, 256, 256)
    loss = model.own_loss(composite, mask, real)
    judged = model.own_loss(composite, mask, real, lambda *images: seen.append(images) or torch.tensor(7.0))
    assert judged.item() == pytest.approx(loss.item() + 7)
    image = model(composite, mask)
    torch.testing.assert_close(seen[0][0], paste(image, composite, mask) if system == "rainnet" else image)
    assert seen[0][1] is mask and seen[0][2] is real


@pytest.mark.parametrize("system", PEERS)
def test_a_system_learns_by_its_own_loss(system):
    """Every tensor gets a gradient, of a loss in float32 where convolutions are in bfloat16."""
    torch.manual_seed(0)
    model = create_model(system, **NARROW.get(system, {"width": 4}))
    side = max(model.smallest, 64)
    real, mask = torch.rand(2, 3, side, side) * 1.6 - 0.8, torch.zeros(2, 1, side, side)
    mask[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    composite = paste(0.6 * real + 0.1, real, mask)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.own_loss(composite, mask, real)
    assert loss.isfinite()
    assert loss.ndim == 0
    assert loss.dtype == torch.float32
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())
    learning = {name.partition(".")[0] for name, grad in gradients.items() if grad.any()}
    assert learning == {name.partition(".")[0] for name in gradients}


def test_what_is_for_hdnet_alone_refuses_the_others_in_one_sentence(tmp_path):
    model = create_model("issam", width=4).eval()
    with pytest.raises(ValueError, match="ONNX export is for HDNet alone, not for IS2AM"):
        export_onnx(model, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="on a CPU RAIN and MGD alone are compiled"):
        compile_network(model, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"the backend onnx is for HDNet alone, not for issam"):
        benchmark(["issam"], [256], "cpu", backends=["onnx"])
    with pytest.raises(ValueError, match=r"none of the networks takes one of these sizes \(idih: 256\)"):
        benchmark(["idih"], [512], "cpu")


class Brighter(DoveNet):
    """Adds a tenth to every colour, and takes multiples of 256 as DoveNet does."""

    def predict(self, composite, mask):
        return composite + 0.1


def test_a_photo_of_a_size_that_a_system_cannot_take_is_squeezed():
    photo, mask = np.full((90, 120, 3), 128, np.uint8), np.zeros((90, 120), np.uint8)
    photo[:, ::7] = (90, 140, 200)
    mask[20:60, 30:80] = 255
    result = np.asarray(harmonize(Brighter(width=4).eval(), photo, mask, snap=False)).astype(int)
    assert np.abs((result - photo)[mask > 0] - 0.1 * 127.5).max() <= 1  # the ridge of the map costs a little
    assert np.array_equal(result[mask == 0], photo[mask == 0])
    for system in ("dovenet", "idih", "issam"):
        assert harmonize(create_model(system, width=4).eval(), photo, mask).size == (120, 90)


class Counting(Brighter):
    """Remembers what it was shown."""

    def predict(self, composite, mask):
        self.shown = composite, mask
        return composite


def test_squeezing_keeps_thin_objects_and_mixes_no_regions():
    photo, mask = np.full((384, 384, 3), 40, np.uint8), np.zeros((384, 384), np.uint8)
    photo[:, 5], mask[:, 5] = 220, 255
    model = Counting(width=4).eval()
    harmonize(model, photo, mask, snap=False)
    composite, inside = model.shown
    assert composite.shape == (1, 3, 256, 256)
    assert inside.any()
    colors = to_unit(composite) * 255
    torch.testing.assert_close(colors[inside.expand_as(colors) > 0], torch.tensor(220.0).expand(3 * int(inside.sum())))
    torch.testing.assert_close(
        colors[inside.expand_as(colors) == 0], torch.tensor(40.0).expand(3 * int((1 - inside).sum()))
    )


@pytest.mark.parametrize("system", ["intrinsic", "dht"])
def test_systems_of_at_most_256_pixels_are_shown_as_many(system):
    model, seen = create_model(system, **NARROW.get(system, {"width": 4})).eval(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
    photo, mask = np.full((300, 400, 3), 40, np.uint8), np.zeros((300, 400), np.uint8)
    mask[100:200, 100:200] = 255
    harmonize(model, photo, mask, snap=False)
    assert seen == [(256, 256)]


def test_intrinsics_own_loss_is_the_sum_of_its_terms():
    torch.manual_seed(0)
    model = create_model("intrinsic", width=4)
    composite, mask, real = torch.rand(2, 3, 64, 64) * 2 - 1, torch.zeros(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    mask[..., 10:40, 10:40] = 1
    reflectance, illumination, mean = model.parts(to_unit(composite), mask)
    second = sum(illumination.diff(dim=one).diff(dim=two).abs().mean() for one, two in ((2, 2), (2, 3), (3, 2), (3, 3)))
    wanted = (
        100 * (reflectance * illumination - real).abs().mean()
        + 10 * losses.edge_difference(reflectance, real)
        + (illumination - real).square().mean()
        + 10 * second
        + 100 * losses.structure_difference(mean, real)
    )
    torch.testing.assert_close(model.own_loss(composite, mask, from_unit(real)), wanted)


def test_cdtnets_and_dccfs_own_losses_are_sums_over_their_images():
    torch.manual_seed(0)
    composite, mask, real = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    mask[..., 10:40, 10:40] = 1
    signed = from_unit(composite), mask, from_unit(real)
    model = create_model("cdtnet", width=4, low=64).eval()
    images = model.images(composite, mask)
    wanted = sum((image - real).square().sum() / (3 * mask[0].sum()) / 2 for image in images)
    torch.testing.assert_close(model.own_loss(*signed), wanted)

    model = create_model("dccf", width=4, low=64).eval()
    maps = model.maps(composite, mask)
    luminance, saturation, hue, result = model.stages(composite, *maps)
    area = mask[0].sum()

    def error(one, other, floor=100):
        return (one - other).square().sum() / (one.shape[1] * max(floor, area)) / 2

    # Low and full size are the same here; of the whole image what has weight 1 with a floor of 100, and 5 with 1000.
    wanted = error(normalize(result), normalize(real)) + 5 * error(normalize(result), normalize(real), 1000)
    wanted = wanted + 2 * error(normalize(hue), normalize(real))
    for name, stage in (("luminance", luminance), ("saturation", saturation), ("hue", hue)):
        make = getattr(losses, f"{name}_map")
        wanted = wanted + error(make(stage) * mask, make(real) * mask)
    for group in (slice(12), slice(12, 21), slice(21, 22)):
        inside = maps[0][:, group] * mask
        steps = inside.diff(dim=2).square().sum() + inside.diff(dim=3).square().sum()
        wanted = wanted + steps / (inside.shape[1] * area) / 2
    torch.testing.assert_close(model.own_loss(*signed), wanted)


def test_inr_pads_to_whole_cells_and_works_in_other_precisions():
    model = create_model("inr", **NARROW_INR).eval()
    composite, mask = torch.rand(1, 3, 40, 72) * 2 - 1, torch.zeros(1, 1, 40, 72)
    mask[..., 10:30, 10:40] = 1
    assert model.own_loss(composite, mask, composite).isfinite()
    for dtype in (torch.float64, torch.bfloat16):
        with torch.inference_mode():
            assert model.to(dtype)(composite.to(dtype), mask.to(dtype)).shape == composite.shape
