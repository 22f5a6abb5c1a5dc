import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2hsv, rgb2lab, xyz_tristimulus_values
from skimage.exposure import match_histograms as skimage_match_histograms

from hdnet_lib.composites.color import (
    RGB_TO_XYZ,
    RGB_TO_YCBCR,
    linear_to_srgb,
    mix_channels,
    rgb_to_lab,
    srgb_to_linear,
)
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.composites.plausibility import LIMITS, Plausibility, measure, plausible
from hdnet_lib.composites.recipes import (
    DRAWS,
    RECIPES,
    TRANSFERS,
    Photometric,
    black_body,
    draw_illuminant,
    draw_photometric,
    draw_rotations,
    draw_tone_curves,
    idt,
    illuminant,
    match_levels,
    photometric,
    recolor,
    reinhard,
    tone_curves,
    xiao,
)
from hdnet_lib.composites.shifts import REAL_SHIFTS, Shift, assumed_retouch, coverage, measure_shift, sample_shifts
from hdnet_lib.evaluation.metrics import Protocol, score


def random_case(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    photo, reference = torch.rand(2, batch, 3, 9, 11, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    mask, reference_mask = (torch.rand(2, batch, 1, 9, 11, generator=generator) < 0.4).double()
    mask[..., 0, :2] = reference_mask[..., 0, :2] = 1
    return photo, mask, reference, reference_mask


def random_uniform(seed, batch=2):
    return torch.rand(batch, DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def foreground(image, mask):
    """The foreground's colours (3, N) of a batch of one."""
    return image[(mask == 1).expand_as(image)].view(3, -1)


# --- colour spaces


def test_lab_is_that_of_scikit_image():
    image = torch.rand(1, 3, 20, 30, dtype=torch.float64)
    image[0, :, 0, :4] = torch.tensor([0.0, 1.0, 0.002, 0.04]).repeat(3, 1)
    expected = rgb2lab(image[0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(rgb_to_lab(image)[0].permute(1, 2, 0), expected, atol=1e-9)


def test_ycbcr_is_that_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    ours = mix_channels(torch.tensor(RGB_TO_YCBCR), torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
    ours = ours[0].permute(1, 2, 0).numpy() + np.array([0, 128, 128])
    assert np.abs(ours - np.asarray(Image.fromarray(pixels).convert("YCbCr"), float)).max() <= 1


def test_transfer_curve_and_its_inverse():
    image = torch.linspace(0, 1, 300, dtype=torch.float64).view(1, 3, 10, 10)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(image)), image, rtol=0, atol=1e-7)


def test_mix_channels_takes_one_matrix_or_one_for_each_image():
    image, matrices = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 3)
    expected = torch.einsum("bij,bjhw->bihw", matrices, image)
    torch.testing.assert_close(mix_channels(matrices, image), expected)
    torch.testing.assert_close(mix_channels(matrices[0], image)[0], expected[0])


# --- every recipe


@given(seed=st.integers(0, 10**6))
def test_recipes_leave_the_background_and_stay_in_range(seed):
    photo, mask, *reference = random_case(seed)
    for recipe in RECIPES:
        composite = recolor(recipe, photo, mask, *reference, random_uniform(seed))
        background = (mask == 0).expand_as(photo)
        assert torch.equal(composite[background], photo[background])
        assert 0 <= composite.min() <= composite.max() <= 1
        assert not torch.equal(composite, photo)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_composite_does_not_depend_on_its_batch_or_on_precision(recipe):
    case, uniform = random_case(3, batch=4), random_uniform(3, batch=4)
    together = recolor(recipe, *case, uniform)
    alone = recolor(recipe, *(x[2:3] for x in case), uniform[2:3])
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-9)
    single = recolor(recipe, *(x.float() for x in case), uniform)
    assert single.dtype == torch.float32
    # At single precision a value may fall into the next level of a histogram, which here holds few pixels.
    assert (single - together).abs().mean() < 1e-2


@pytest.mark.parametrize("recipe", TRANSFERS)
def test_a_region_is_its_own_reference(recipe):
    photo, mask, _, _ = random_case(0, batch=1)
    result = recolor(recipe, photo, mask, photo, mask, random_uniform(0, 1))
    torch.testing.assert_close(result, photo, rtol=0, atol=5e-3)


@pytest.mark.parametrize("recipe", TRANSFERS)
def test_transfers_read_the_reference_inside_its_mask_only(recipe):
    photo, mask, reference, reference_mask = random_case(0)
    other = torch.where(reference_mask == 1, reference, 1 - reference)
    one, two = (recolor(recipe, photo, mask, image, reference_mask, random_uniform(0)) for image in (reference, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("recipe", RECIPES)
def test_flat_regions_give_numbers(recipe):
    photo = torch.full((1, 3, 8, 8), 0.5)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:4, 2:4] = 1
    dark = torch.zeros(1, 3, 8, 8)
    for one, other in ((photo, dark), (dark, photo), (photo, photo)):
        assert recolor(recipe, one, mask, other, mask, random_uniform(0, 1)).isfinite().all()


def test_unknown_recipe_gets_a_sentence():
    with pytest.raises(ValueError, match="there is no recipe called 'magic', only reinhard, xiao"):
        recolor("magic", *random_case(0), random_uniform(0))


# --- each recipe


def test_reinhard_gives_the_statistics_of_the_reference():
    """Recoloured by a darker copy of itself, the foreground becomes that copy."""
    photo, mask, _, _ = random_case(0, batch=1)
    darker = photo * 0.5
    result = reinhard(photo, mask, darker, mask)
    torch.testing.assert_close(foreground(result, mask), foreground(darker, mask), rtol=0, atol=2e-3)


def test_xiao_gives_mean_and_covariance_of_the_reference():
    photo, mask, reference, reference_mask = random_case(5, batch=1)
    photo, reference = 0.45 + 0.1 * photo, 0.4 + 0.2 * reference  # far from the ends: nothing is clipped
    result, wanted = (
        foreground(image, m)
        for image, m in ((xiao(photo, mask, reference, reference_mask), mask), (reference, reference_mask))
    )
    torch.testing.assert_close(result.mean(1), wanted.mean(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(result.cov(correction=0), wanted.cov(correction=0), rtol=1e-2, atol=1e-6)


def test_matching_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    target = rng.integers(30, 90, (40, 50, 3), dtype=np.uint8)
    reference = (rng.integers(0, 60, (30, 35, 3)) * 4 % 251).astype(np.uint8)  # levels with gaps
    expected = skimage_match_histograms(target.astype(np.float64), reference.astype(np.float64), channel_axis=-1)
    images = [torch.from_numpy(x).permute(2, 0, 1)[None].double() / 255 for x in (target, reference)]
    masks = [torch.ones_like(image[:, :1]) for image in images]
    low = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    matched = match_levels(images[0], masks[0], images[1], masks[1], low, low + 1)
    np.testing.assert_allclose(matched[0].permute(1, 2, 0) * 255, expected, atol=1e-4)


def test_idt_gives_the_distribution_of_the_reference():
    """Without smoothing it would be the same along every direction; with it, it is much nearer."""
    rng = torch.Generator().manual_seed(0)
    photo = torch.rand(1, 3, 64, 64, generator=rng) * 0.3 + 0.1
    reference = torch.rand(1, 3, 64, 64, generator=rng) * torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1) + 0.4
    reference[:, 0] += 0.5 * reference[:, 1] - 0.3  # correlated channels
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 8:56, 8:56] = 1
    result = idt(photo, mask, reference, mask, draw_rotations(random_uniform(1, 1)[:, :30]))
    directions = torch.nn.functional.normalize(torch.randn(20, 3, generator=rng), dim=1)

    def distance(image):
        ours, theirs = (directions @ foreground(x, mask) for x in (image, reference))
        return (ours.sort().values - theirs.sort().values).abs().mean()

    assert distance(result) < 0.12 * distance(photo)


def test_regrain_keeps_flat_surfaces_flat():
    """A sky of one colour and faint noise must not become grainy when it takes the colours of a forest."""
    rng = torch.Generator().manual_seed(0)
    sky = torch.tensor([0.5, 0.6, 0.8]).view(1, 3, 1, 1) + 0.004 * torch.rand(1, 3, 48, 48, generator=rng)
    forest = torch.rand(1, 3, 48, 48, generator=rng) * 0.6
    mask = torch.ones(1, 1, 48, 48)
    mask[..., :4, :] = 0
    grain = {
        recipe: recolor(recipe, sky, mask, forest, mask, random_uniform(0, 1))[:, :, 5:].std()
        for recipe in ("histogram", "idt")
    }
    assert grain["idt"] < 0.2 * grain["histogram"]


def test_rotations_are_rotations():
    rotations = draw_rotations(random_uniform(0, 5)[:, :30])
    assert rotations.shape == (5, 10, 3, 3)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(5, 10, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(5, 10, dtype=torch.float64))


@pytest.mark.parametrize("field", Photometric._fields)
def test_each_photometric_setting_does_what_it_says(field):
    photo, mask, _, _ = random_case(1, batch=1)
    neutral = {name: torch.ones(1, 1, 1, 1, dtype=torch.float64) for name in Photometric._fields}
    torch.testing.assert_close(photometric(photo, mask, Photometric(**neutral)), photo)
    result = photometric(photo, mask, Photometric(**(neutral | {field: neutral[field] * 0.7})))
    inside, before = foreground(result, mask), foreground(photo, mask)
    expected = {
        "gamma": before**0.7,
        "gain": before * 0.7,
        "channel_gain": before * 0.7,
        "contrast": (before - before.mean(1, keepdim=True)) * 0.7 + before.mean(1, keepdim=True),
    }
    if field in expected:
        torch.testing.assert_close(inside, expected[field])
    else:
        saturation = [rgb2hsv(image.T.numpy())[:, 1].mean() for image in (before, inside)]
        assert saturation[1] < saturation[0]


def test_photometric_draws_have_the_stated_ranges():
    settings = draw_photometric(random_uniform(0, 2000)[:, :7])
    for name, low, high in (
        ("gamma", 0.496, 2.014),
        ("gain", 0.55, 1.5),
        ("contrast", 0.65, 1.5),
        ("saturation", 0.4, 1.7),
    ):
        values = getattr(settings, name)
        assert values.shape == (2000, 1, 1, 1)
        assert low <= values.min() < low + 0.02
        assert high - 0.02 < values.max() <= high
    assert settings.channel_gain.shape == (2000, 3, 1, 1)
    assert abs(settings.channel_gain.log().std() - 0.13) < 0.01


def test_tone_curves_rise_and_the_straight_one_changes_nothing():
    photo, mask, _, _ = random_case(2)
    line = torch.linspace(0, 1, 6, dtype=torch.float64).expand(2, 3, 6)
    torch.testing.assert_close(tone_curves(photo, mask, line), photo)
    curves = draw_tone_curves(random_uniform(0, 50)[:, :24])
    assert (curves.diff(dim=-1) >= 0).all()
    ramp = torch.linspace(0, 1, 200, dtype=torch.float64).view(1, 1, 1, 200).expand(50, 3, 1, 200)
    values = tone_curves(ramp, torch.ones(50, 1, 1, 200), curves)
    assert (values.diff(dim=-1) >= -1e-12).all()
    # By the definition: sum of b_k times the Bernstein polynomials.
    x = ramp[0, 0, 0]
    basis = [c * x**k * (1 - x) ** (5 - k) for k, c in enumerate((1, 5, 10, 10, 5, 1))]
    expected = sum(b * f for b, f in zip(curves[7, 1], basis, strict=True))
    torch.testing.assert_close(values[7, 1, 0], expected)


def test_light_of_6504_kelvin_changes_nothing():
    photo, mask, _, _ = random_case(2)
    kelvin, tint = torch.tensor([6504.0, 6504.0]), torch.zeros(2)
    torch.testing.assert_close(illuminant(photo, mask, kelvin, tint), photo, rtol=0, atol=1e-6)


def test_black_body_of_2856_kelvin_is_illuminant_a():
    x, y, z = black_body(torch.tensor([2856.0], dtype=torch.float64))[0].tolist()
    expected = xyz_tristimulus_values(illuminant="A", observer="2")
    np.testing.assert_allclose([x, y, z], expected, atol=5e-3)


def test_white_under_a_lamp_has_the_colour_of_the_lamp():
    white = torch.full((1, 3, 4, 4), 0.8, dtype=torch.float64)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    kelvin = torch.tensor([5000.0])
    relit = srgb_to_linear(illuminant(white, mask, kelvin, torch.zeros(1)))
    xyz = mix_channels(torch.tensor(RGB_TO_XYZ, dtype=torch.float64), relit)[0, :, 0, 0]
    day, lamp = black_body(torch.tensor([6504.0, 5000.0], dtype=torch.float64))
    d65 = torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)
    torch.testing.assert_close(xyz / xyz[1], d65 * lamp / day, rtol=0.01, atol=0)
    green = illuminant(white, mask, torch.tensor([6504.0]), torch.tensor([0.1]))
    assert green[0, 1, 0, 0] > green[0, 0, 0, 0]


def test_illuminant_draws():
    kelvin, tint = draw_illuminant(random_uniform(0, 1000)[:, :2])
    assert 3333 <= kelvin.min() < 3500
    assert 12000 < kelvin.max() <= 13334
    assert abs(tint.std() - 0.08) < 0.01


# --- plausibility and shifts


def test_plausibility_by_scikit_image():
    photo, mask, _, _ = random_case(4)
    composite = torch.where(mask == 1, (photo * 1.4).clamp(0, 1), photo)
    values = measure(composite, photo, mask)
    for index in range(2):
        inside = mask[index, 0].numpy() == 1
        before, after = (rgb2lab(x[index].permute(1, 2, 0).numpy())[inside] for x in (photo, composite))
        assert values.change[index].item() == pytest.approx(np.linalg.norm(after - before, axis=1).mean(), rel=1e-4)
        tint = np.linalg.norm((after - before).mean(axis=0)[1:])
        assert values.tint[index].item() == pytest.approx(tint, rel=1e-3)
        assert values.contrast[index].item() == pytest.approx(after[:, 0].std() / before[:, 0].std(), rel=1e-3)
        structure = np.corrcoef(after[:, 0], before[:, 0])[0, 1]
        assert values.structure[index].item() == pytest.approx(structure, rel=1e-3)
        clipped = (composite[index].amax(dim=0).numpy()[inside] >= 254.5 / 255).mean()
        assert values.clipped[index].item() == pytest.approx(clipped, abs=1e-4)


@pytest.mark.parametrize("field", Plausibility._fields)
def test_each_limit_rejects(field):
    middle = Plausibility(*(torch.tensor([(low + high) / 2] * 3) for low, high in LIMITS))
    assert plausible(middle).all()
    low, high = getattr(LIMITS, field)
    outside = middle._replace(**{field: torch.tensor([low - 0.01, (low + high) / 2, high + 0.01])})
    assert plausible(outside).tolist() == [False, True, False]


def test_a_flat_foreground_can_be_plausible():
    photo, mask = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 2:5] = 1
    assert plausible(measure(torch.where(mask == 1, photo * 1.25, photo), photo, mask)).all()


def test_shifts_by_scikit_image():
    photo, mask, _, _ = random_case(6)
    composite = torch.where(mask == 1, photo**1.5, photo)
    shift = measure_shift(composite, photo, mask)
    inside = mask[1, 0].numpy() == 1
    images = [x[1].permute(1, 2, 0).numpy() for x in (composite, photo)]
    after, before = (rgb2lab(image)[inside] for image in images)
    np.testing.assert_allclose([shift.lightness[1], shift.a[1], shift.b[1]], (after - before).mean(axis=0), rtol=1e-3)
    chroma = np.linalg.norm(after[:, 1:], axis=1).mean() - np.linalg.norm(before[:, 1:], axis=1).mean()
    assert shift.chroma[1].item() == pytest.approx(chroma, rel=1e-3)
    assert shift.spread[1].item() == pytest.approx(np.log2(after[:, 0].std() / before[:, 0].std()), abs=1e-3)
    expected = score(images[0] * 255, images[1] * 255, inside, protocol=Protocol(rounding="none")).psnr
    assert shift.psnr[1].item() == pytest.approx(expected, rel=1e-4)


def test_neutral_retouch_changes_nothing():
    photo, mask, _, _ = random_case(0)
    neutral = torch.tensor([[0.5, 0.5, 0.25 / 0.58, 0.3 / 0.7, (1e6 / 6504 - 100) / 108, 0.5]] * 2)
    torch.testing.assert_close(assumed_retouch(photo, mask, neutral), photo, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_training_composites_cover_the_real_shifts(mini):
    """From the four train photos of the mini set alone; thousands of photos cover more."""
    real = pd.read_csv(REAL_SHIFTS)
    assert len(real) == 30
    made, retouched = sample_shifts(PhotoDataset(mini / "pool.csv", "train", 128), 192)
    assert list(made) == list(retouched) == list(Shift._fields)
    assert len(made) == len(retouched) == 192
    covered = coverage(real, made)
    assert covered.min() >= 0.7, covered
    assert covered.mean() >= 0.85, covered
    narrow = made * 0.1  # the test can fail: a tenth of the shift does not cover
    assert coverage(real, narrow)[["lightness", "chroma", "spread"]].max() < 0.6
