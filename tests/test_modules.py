import pytest
import torch
from conftest import check_gradients
from hypothesis import given
from hypothesis import strategies as st

from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.rain import RAIN
from hdnet_lib.model.variants import LearnedMaskGlobalDynamic, SpatialAttention
from hdnet_lib.utils import regions
from hdnet_lib.utils.regions import region_statistics

SEEDS = st.integers(0, 10**6)


def feature_and_mask(seed, batch=2, channels=4, side=6, dtype=torch.float64):
    torch.manual_seed(seed)
    feature = torch.randn(batch, channels, side, side, dtype=dtype) * 3 + 1
    mask = (torch.rand(batch, 1, side, side) < 0.5).to(dtype)
    mask[..., 0, :2], mask[..., -1, :2] = 1, 0  # at least two positions of both regions
    return feature, mask


@given(seed=SEEDS)
def test_rain_gives_the_foreground_the_statistics_that_the_background_had(seed):
    feature, mask = feature_and_mask(seed)
    result = RAIN(4, eps=1e-12).double()(feature, mask)
    mean_b, sd_b = region_statistics(feature, 1 - mask)
    mean, sd = region_statistics(result, mask)
    torch.testing.assert_close(mean, mean_b, rtol=0, atol=1e-3)
    torch.testing.assert_close(sd, sd_b, rtol=0, atol=1e-2)


@given(seed=SEEDS)
def test_rain_equals_its_two_formulae(seed):
    feature, mask = feature_and_mask(seed)
    rain = RAIN(4).double()
    with torch.no_grad():
        for parameter in rain.parameters():
            parameter.normal_()
    g_f, b_f, g_b, b_b = (p.detach().view(1, -1, 1, 1) for p in rain.parameters())
    (mu_f, sd_f), (mu_b, sd_b) = region_statistics(feature, mask), region_statistics(feature, 1 - mask)
    foreground = ((feature - mu_f) / sd_f * sd_b + mu_b) * (1 + g_f) + b_f
    background = (feature - mu_b) / sd_b * (1 + g_b) + b_b
    torch.testing.assert_close(rain(feature, mask), torch.where(mask == 1, foreground, background))


def test_statistics_by_hand_and_of_an_empty_region():
    feature = torch.tensor([[[[1.0, 3.0], [7.0, 9.0]]]])
    mean, sd = region_statistics(feature, torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]), eps=1e-9)
    torch.testing.assert_close((mean.item(), sd.item()), (2.0, 1.0))
    mean, sd = region_statistics(feature, torch.zeros(1, 1, 2, 2), eps=1e-4)
    torch.testing.assert_close((mean.item(), sd.item()), (0.0, 0.01))


def test_rain_keeps_the_dtype_and_computes_the_statistics_in_float32():
    feature, mask = 100 + torch.randn(2, 4, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    feature, rain = feature.bfloat16(), RAIN(4)
    with torch.autocast("cpu", torch.bfloat16):
        result = rain(feature, mask)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), rain(feature.float(), mask), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("module", [RAIN(4), GlobalDynamic(4)], ids=["rain", "mgd"])
def test_a_map_in_bands_gives_the_same(module, monkeypatch):
    feature, mask = feature_and_mask(0, side=37)
    module = module.double()
    whole = module(feature, mask)
    monkeypatch.setattr(regions, "LARGE", 100)
    monkeypatch.setattr(regions, "BAND", 2000)
    with torch.no_grad():
        assert len(list(regions.bands(feature, mask))) == 7
        torch.testing.assert_close(module(feature, mask), whole, rtol=1e-12, atol=1e-12)
    assert len(list(regions.bands(feature, mask))) == 1  # a gradient needs all of it


def test_rain_gradients():
    feature, mask = feature_and_mask(0, side=4)
    check_gradients(RAIN(4).double(), feature, mask)


@given(seed=SEEDS)
def test_mgd_equals_equation_6_position_by_position(seed):
    feature, mask = feature_and_mask(seed, side=3)
    module = GlobalDynamic(4).double()
    w_f, w_b = module.kernels(feature)
    result = module(feature, mask)
    for b, y, x in torch.cartesian_prod(*map(torch.arange, (2, 3, 3))).tolist():
        kernel = w_f[b] if mask[b, 0, y, x] == 1 else w_b[b]
        torch.testing.assert_close(result[b, :, y, x], kernel @ feature[b, :, y, x])


@given(seed=SEEDS)
def test_mgd_with_equal_kernels_ignores_the_mask(seed):
    feature, mask = feature_and_mask(seed)
    module = GlobalDynamic(4).double()
    with torch.no_grad():
        for parameter in module.parameters():
            foreground, background = parameter.chunk(2)
            background.copy_(foreground)
    torch.testing.assert_close(*module.kernels(feature))
    torch.testing.assert_close(module(feature, mask), module(feature, 1 - mask))


def test_mgd_kernels_depend_on_the_image_through_four_scalars_only():
    feature, _ = feature_and_mask(0)
    module = GlobalDynamic(4).double()
    scalars = module.steering(feature)
    assert scalars.shape == (2, 4, 1, 1)
    assert ((scalars > 0) & (scalars < 1)).all()
    shuffled = feature.flatten(2)[..., torch.randperm(36)].view_as(feature)  # the same means
    torch.testing.assert_close(module.kernels(shuffled), module.kernels(feature))


@pytest.mark.slow
def test_mgd_gradients():
    feature, mask = feature_and_mask(0, side=3)
    check_gradients(GlobalDynamic(4).double(), feature, mask)


def test_learned_mask_replaces_the_given_one():
    feature, mask = feature_and_mask(0)
    module = LearnedMaskGlobalDynamic(4).double()
    torch.testing.assert_close(module(feature, mask), module(feature, 1 - mask))
    scores = module.guide.conv(feature)
    learned = module.region_mask(feature, mask)
    torch.testing.assert_close(learned[:, 0], torch.sigmoid(scores[:, 0] - scores[:, 1]))


def test_spatial_attention_is_a_gate_that_ignores_the_mask():
    feature, mask = feature_and_mask(0)
    module = SpatialAttention(4).double()
    result = module(feature, mask)
    torch.testing.assert_close(result / feature, module.gate(feature).sigmoid())
    assert torch.equal(result, module(feature, 1 - mask))
