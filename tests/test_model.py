import pytest
import torch
from conftest import random_inputs

from hdnet_lib import create_model, list_models, paste
from hdnet_lib.model.initialization import initialize_as_identity
from hdnet_lib.model.losses import foreground_mse

OWN = [name for name, family in list_models().items() if family == "HDNet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("overrides", [{}, {"k": 3}, {"local_dynamic": "released"}], ids=str)
def test_every_model_runs_and_learns(name, overrides):
    model = create_model(name, width=2, **overrides)
    composite, mask = random_inputs(batch=2)
    output = model(composite, mask)
    assert output.shape == composite.shape
    assert output.abs().max() <= 1
    foreground_mse(paste(output, composite, mask), torch.zeros_like(composite), mask).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []


def parameters(model, without=""):
    return sum(p.numel() for n, p in model.named_parameters() if not without or without not in n)


def test_parameter_counts():
    star, star_lite = create_model("hdnet-star"), create_model("hdnet-star", width=8)
    assert (parameters(star), parameters(star_lite)) == (10_414_389, 652_893)  # with the guide convolutions
    assert parameters(create_model("hdnet")) == parameters(star, "guide") == 10_414_389 - 902
    assert parameters(create_model("hdnet-lite")) == parameters(star_lite, "guide") == 652_893 - 230
    assert (parameters(star.local_dynamic), parameters(star_lite.local_dynamic)) == (131_328, 8_256)
    assert (parameters(star.dynamics), parameters(star_lite.dynamics)) == (518_802, 32_946)


def test_rows_of_table_3_have_the_modules_that_they_name():
    modules = {
        name: (model.local_dynamic is not None, sorted({type(m).__name__ for m in model.dynamics.values()}))
        for name, model in ((name, create_model(name, width=2)) for name in OWN)
    }
    assert modules["base"] == (False, [])
    assert modules["base+ld"] == (True, [])
    assert modules["base+sa"] == (False, ["SpatialAttention"])
    assert modules["base+mgd"] == (False, ["GlobalDynamic"])
    assert modules["hdnet"] == (True, ["GlobalDynamic"])
    assert modules["hdnet-star"] == (True, ["LearnedMaskGlobalDynamic"])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 40), (64, 16)])
def test_any_multiple_of_eight(nano, height, width):
    composite, mask = random_inputs(height=height, width=width)
    assert nano(composite, mask).shape == composite.shape


def test_batch_of_two_equals_two_batches_of_one(nano):
    composite, mask = random_inputs(batch=2)
    together = nano(composite, mask)
    for index in range(2):
        alone = nano(composite[index : index + 1], mask[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)


def test_mask_matters(nano):
    composite, mask = random_inputs()
    assert (nano(composite, mask) - nano(composite, 1 - mask)).abs().max() > 0.01


def test_inspect_shows_what_forward_did(nano):
    composite, mask = random_inputs()
    pieces = nano.inspect(composite, mask)
    features, matches = pieces.features, pieces.matches
    assert torch.equal(pieces.output, nano(composite, mask))
    assert features["encoder0"].shape == (1, 2, 32, 32)
    assert features["bottleneck"].shape == features["local_dynamic"].shape == (1, 16, 4, 4)
    assert features["decoder6"].shape == (1, 4, 32, 32)
    assert matches.similarity.shape == (1, 16, 16)
    reference = nano.local_dynamic.reference(features["bottleneck"], matches)
    fused = nano.local_dynamic.fuse(reference, features["bottleneck"].flatten(2))
    foreground = ~matches.background[0]
    torch.testing.assert_close(features["local_dynamic"].flatten(2)[0, :, foreground], fused[0, :, foreground])
    assert {stage: w_f.shape for stage, (w_f, _) in pieces.kernels.items()} == {
        "4": (1, 16, 16), "5": (1, 8, 8), "6": (1, 4, 4),
    }  # fmt: skip
    w_f, w_b = pieces.kernels["6"]
    expected = torch.where(
        mask == 1,
        torch.einsum("boi,bihw->bohw", w_f, features["decoder6"]),
        torch.einsum("boi,bihw->bohw", w_b, features["decoder6"]),
    )
    torch.testing.assert_close(features["dynamic6"], expected)


def test_inspect_without_local_dynamic():
    assert create_model("base", width=2).inspect(*random_inputs()).matches is None


C, M = random_inputs()
BAD = {
    "list": ([1], M),
    "uint8 composite": (C.byte(), M),
    "bool mask": (C, M.bool()),
    "different dtypes": (C.double(), M),
    "no batch": (C[0], M),
    "one channel": (C[:, :1], M),
    "mask with three channels": (C, M.expand(-1, 3, -1, -1)),
    "mask without channel": (C, M[:, 0]),
    "different sizes": (C, M[..., :24]),
    "different batches": (C.expand(2, -1, -1, -1), M),
    "odd size": (C[..., :30], M[..., :30]),
    "too small": (C[..., :8], M[..., :8]),
    "empty batch": (C[:0], M[:0]),
}


@pytest.mark.parametrize(("composite", "mask"), BAD.values(), ids=BAD)
def test_bad_inputs_get_one_sentence(nano, composite, mask):
    with pytest.raises((ValueError, TypeError), match=r"must") as caught:
        nano(composite, mask)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [{"width": 0}, {"width": 1.5}, {"decoder_module": "se"}, {"k": 0}, {"local_dynamic": "x"},
                  {"learned_mask": True, "decoder_module": "sa"}, {"use_local_dynamic": False, "k": -2}], ids=str
)  # fmt: skip
def test_bad_arguments_get_one_sentence(arguments):
    with pytest.raises(ValueError, match=r"must|needs"):
        create_model("hdnet", **arguments)


def test_loss_by_hand():
    real = torch.zeros(2, 3, 16, 16)
    harmonized, mask = real.clone(), torch.zeros(2, 1, 16, 16)
    mask[0, 0], mask[1, 0, :2, :2] = 1, 1
    harmonized[0], harmonized[1, :, :2, :2] = 0.5, 1.0
    # 0.25 on 256 pixels; 1.0 on 4 pixels, but the divisor is A_min = 100
    torch.testing.assert_close(foreground_mse(harmonized, real, mask).item(), (0.25 + 4 / 100) / 2)
    torch.testing.assert_close(foreground_mse(harmonized, real, mask, a_min=1).item(), (0.25 + 1.0) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OWN if name != "hdnet-nano"])
def test_an_identity_start_gives_the_composite_back(name):
    torch.manual_seed(0)
    model = create_model(name, width=8)
    initialize_as_identity(model)
    composite, mask = random_inputs(batch=2)
    output = model(composite, mask)
    assert (output - (1.15 * composite).tanh()).abs().mean() < 0.05
    foreground_mse(paste(output, composite, mask), torch.zeros_like(composite), mask).backward()
    assert model.output.weight.grad.abs().amax(dim=(1, 2, 3)).min() > 0  # what reads nothing yet can learn to


def test_an_identity_start_takes_what_a_narrow_network_can_carry():
    model = create_model("hdnet-nano")
    initialize_as_identity(model)
    composite, mask = random_inputs()
    output = model(composite, mask)
    positive = composite[:, :2].clamp(min=0)  # red and green, and their negatives do not fit in
    assert (output[:, :2] - (1.15 * positive).tanh()).abs().mean() < 0.05
