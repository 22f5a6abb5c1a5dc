"""Spoiled masks, as notebook 08 gives them to the networks."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from hdnet_lib.data.careless import fade
from hdnet_lib.data.masks import PERTURBATIONS, feather, grow_mask, perturb_mask
from hdnet_lib.data.samples import Sample
from hdnet_lib.evaluation.methods import BASELINES

MASK = np.zeros((60, 80), bool)
MASK[20:40, 25:60] = True
MASK[30:45, 30:40] = True


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_nothing_is_spoiled_by_zero_pixels_and_the_same_every_time(kind):
    assert np.array_equal(perturb_mask(MASK, kind, 0), MASK)
    assert np.array_equal(perturb_mask(MASK, kind, 3), perturb_mask(MASK, kind, 3))
    assert not np.array_equal(perturb_mask(MASK, kind, 3), MASK)


@pytest.mark.parametrize("amount", [1, 2, 4])
def test_erosion_and_dilation_are_by_a_disc(amount):
    rows, columns = np.mgrid[-amount : amount + 1, -amount : amount + 1]
    disc = rows**2 + columns**2 <= (amount + 0.25) ** 2  # half a pixel to the border, and half of the next
    eroded, dilated = perturb_mask(MASK, "eroded", amount), perturb_mask(MASK, "dilated", amount)
    assert (eroded & ~MASK).sum() == (MASK & ~dilated).sum() == 0
    assert (eroded != ndimage.binary_erosion(MASK, disc)).mean() < 0.01
    assert (dilated != ndimage.binary_dilation(MASK, disc)).mean() < 0.01
    assert eroded.sum() < MASK.sum() < dilated.sum()


@pytest.mark.parametrize("pixels", [-2, -1, 0, 1, 2])
def test_masks_grow_and_shrink_to_all_sides(pixels):
    square = np.ones((2 * abs(pixels) + 1,) * 2)
    change = ndimage.binary_dilation if pixels > 0 else ndimage.binary_erosion
    expected = change(MASK, square) if pixels else MASK
    assert np.array_equal(grow_mask(torch.from_numpy(MASK)[None, None].float(), pixels)[0, 0].numpy(), expected)


def test_the_edge_of_the_image_is_no_border():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., :5] = 1
    assert grow_mask(mask, -2)[0, 0].sum(dim=1).unique().tolist() == [3]
    torch.testing.assert_close(feather(mask, 1)[0, 0, 0], torch.tensor([1, 1, 1, 1, 1 / 3, 0, 0, 0, 0]))


def test_a_feathered_foreground_fades_out_inside_its_mask():
    mask = torch.from_numpy(MASK)[None, None].float()
    assert torch.equal(feather(mask, 0), mask)
    for pixels in (1, 2):
        opacity = feather(mask, pixels)
        assert (opacity[mask == 0] == 0).all()
        assert (opacity[grow_mask(mask, -pixels) > 0] == 1).all()
        assert 0 < opacity[0, 0, 30, 59] < opacity[0, 0, 30, 59 - pixels] == 1


def test_a_shift_keeps_the_shape_and_a_rough_border_stays_near():
    shifted = perturb_mask(MASK, "shifted", 4)
    moved = np.array(ndimage.center_of_mass(shifted)) - ndimage.center_of_mass(MASK)
    assert np.linalg.norm(moved) == pytest.approx(4, abs=0.8)
    assert shifted.sum() == MASK.sum()
    rough = perturb_mask(MASK, "rough", 4)
    changed = rough != MASK
    assert changed.any()
    assert (perturb_mask(MASK, "eroded", 4) & ~rough).sum() == (rough & ~perturb_mask(MASK, "dilated", 4)).sum() == 0
    assert not np.array_equal(
        perturb_mask(MASK.T, "shifted", 9), perturb_mask(MASK, "shifted", 9).T
    )  # each its own direction


def test_what_vanishes_is_empty_and_unknown_kinds_are_refused():
    small = np.zeros((20, 20), bool)
    small[8:10, 8:10] = True
    assert not perturb_mask(small, "eroded", 4).any()
    for mask in (np.zeros((20, 20), bool), np.ones((20, 20), bool)):
        assert all(np.array_equal(perturb_mask(mask, kind, 3), mask) for kind in PERTURBATIONS)
    photo = np.zeros((20, 20, 3), np.uint8)
    example = Sample(photo, perturb_mask(small, "eroded", 4), photo, "one", "x", "a")
    assert all(np.array_equal(method([example])[0], photo) for method in BASELINES.values())
    with pytest.raises(ValueError, match="a mask can be eroded, dilated, shifted, rough, not 'blurred'"):
        perturb_mask(MASK, "blurred", 1)


def test_an_example_that_fades_is_the_composite_inside_and_the_real_photo_at_its_border():
    composite, real = (np.full((*MASK.shape, 3), value, np.uint8) for value in (200, 100))
    composite[~MASK] = 100
    faded = fade(Sample(composite, MASK, real, "a", "s", "p"), 2)
    inside = perturb_mask(MASK, "eroded", 3)
    assert (faded.composite[inside] == 200).all()
    assert (faded.composite[~MASK] == 100).all()
    border = faded.composite[MASK & ~perturb_mask(MASK, "eroded", 1)]
    assert (border >= 100).all()
    assert border.mean() < 140
    assert np.array_equal(faded.mask, MASK)
