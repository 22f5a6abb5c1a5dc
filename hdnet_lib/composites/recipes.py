"""Recipes that make a composite from a real photo: recolour its foreground.

Every recipe works on batches on any device: images (B, 3, H, W) in [0, 1], masks (B, 1, H, W) with 1
on the foreground, and returns the composite, whose background is the photo's, untouched. Transfers take
the colours of another photo's region; changes take settings. All randomness comes in as numbers from
outside (``uniform``), so the same numbers give the same composite in any batch.
"""

from math import comb
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from hdnet_lib.composites.color import RGB_TO_XYZ, RGB_TO_YCBCR, linear_to_srgb, mix_channels, srgb_to_linear
from hdnet_lib.utils.regions import region_statistics

# Ruderman's l-alpha-beta, as used by Reinhard et al. 2001: RGB -> LMS, log10, decorrelate.
_RGB_TO_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_LMS_TO_LAB = ((3**-0.5, 3**-0.5, 3**-0.5), (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0))
# XYZ -> cone responses for chromatic adaptation (Bradford; Lam 1985).
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))

DRAWS = 32
"""How many numbers of ``uniform`` (B, DRAWS), each in (0, 1), :func:`recolor` may use for one composite."""


def _paste(foreground: Tensor, photo: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask > 0.5, foreground.clamp(0, 1), photo)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


# --- Transfers: the colours of a reference region ---------------------------------------------------


def reinhard(photo: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor) -> Tensor:
    """Give the foreground the colour mean and spread of another photo's region.

    In l-alpha-beta, per channel: ``x' = (x - mu_t) sd_r / sd_t + mu_r`` with t the foreground and r the
    reference region (Reinhard, Ashikhmin, Gooch and Shirley, "Color transfer between images", 2001).
    """
    to_lms, to_lab = photo.new_tensor(_RGB_TO_LMS), photo.new_tensor(_LMS_TO_LAB)

    def to_space(image: Tensor) -> Tensor:
        return mix_channels(to_lab, mix_channels(to_lms, image).clamp(min=1 / 255).log10())

    target = to_space(photo)
    target_mean, target_sd = region_statistics(target, mask, eps=1e-8)
    reference_mean, reference_sd = region_statistics(to_space(reference), reference_mask, eps=1e-8)
    moved = (target - target_mean) * (reference_sd / target_sd) + reference_mean
    # The ends of log space are cut: no photo needs them, and 10 to a large power overflows.
    lms = 10 ** mix_channels(to_lab.inverse(), moved).clamp(-4, 1)
    return _paste(mix_channels(to_lms.inverse(), lms), photo, mask)


def xiao(photo: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor) -> Tensor:
    """Give the foreground the colour mean and the full covariance of another photo's region.

    In RGB: ``x' = U_r S_r^1/2 S_t^-1/2 U_t^T (x - mu_t) + mu_r``, with ``U S U^T`` the covariance of the
    colours (Xiao and Ma, "Color transfer in correlated color space", 2006). The formula leaves the signs
    of the eigenvectors open; here each of U_r points the way of its partner in U_t.
    """
    target_mean, target_sd, target_axes = _principal_axes(photo, mask)
    reference_mean, reference_sd, reference_axes = _principal_axes(reference, reference_mask)
    flipped = (target_axes * reference_axes).sum(dim=1, keepdim=True) < 0
    scaled = torch.where(flipped, -reference_axes, reference_axes) * (reference_sd / target_sd).unsqueeze(1)
    matrix = (scaled.unsqueeze(2) * target_axes.unsqueeze(1)).sum(-1)  # scaled @ target_axes^T, never in TF32
    return _paste(mix_channels(matrix, photo - target_mean) + reference_mean, photo, mask)


def _principal_axes(image: Tensor, region: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (B, 3, 1, 1), standard deviations (B, 3) and axes (B, 3, 3; columns) of the colours in a region.

    A deviation counts as one grey level at least: less is noise, which must not be blown up.
    """
    mean, _ = region_statistics(image, region)
    centered = ((image - mean) * region).flatten(2)
    covariance = (centered.unsqueeze(1) * centered.unsqueeze(2)).sum(-1) / region.sum(dim=(2, 3)).unsqueeze(-1)
    values, axes = torch.linalg.eigh(covariance)
    return mean, values.clamp(min=1 / 255**2).sqrt(), axes


def match_histograms(photo: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor) -> Tensor:
    """Give each channel of the foreground the histogram of another photo's region.

    Cumulative histograms of 256 levels, matched in Y, Cb and Cr (Fecker, Barkowsky and Kaup,
    "Histogram-based prefiltering for luminance and chrominance compensation of multiview video", 2008).
    """
    to_ycbcr = photo.new_tensor(RGB_TO_YCBCR)
    low = photo.new_tensor((0.0, -0.5, -0.5)).view(1, 3, 1, 1)
    target, model = (mix_channels(to_ycbcr, image) for image in (photo, reference))
    matched = match_levels(target, mask, model, reference_mask, low, low + 1)
    return _paste(mix_channels(to_ycbcr.inverse(), matched), photo, mask)


def match_levels(
    target: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Match each channel's cumulative histogram of 256 levels between ``low`` and ``high`` (B or 1, 3, 1, 1).

    Where the quantile of a level falls between two levels that the reference has, the value is
    interpolated, as in ``skimage.exposure.match_histograms``.
    """
    span = (high - low) / 255
    cumulative, counts = _cumulative(reference, reference_mask, low, span)
    wanted, _ = _cumulative(target, mask, low, span)
    levels = torch.arange(256, device=target.device)
    present = torch.where(counts > 0, levels, -1).cummax(dim=-1).values  # last level that occurs, up to each
    upper = torch.searchsorted(cumulative, wanted - 1e-6).clamp(max=255)
    lower = present.gather(-1, (upper - 1).clamp(min=0))
    lower = torch.where(lower < 0, upper, lower)
    below, above = cumulative.gather(-1, lower), cumulative.gather(-1, upper)
    share = ((wanted - below) / (above - below).clamp(min=1e-6)).clamp(0, 1)
    table = lower + share * (upper - lower)

    # What a value has beyond its level, half a level at most, it keeps.
    level = _level(target, low, span)
    beyond = (target - low) / span - level
    return (table.gather(-1, level.flatten(2)).unflatten(2, target.shape[2:]) + beyond) * span + low


def _level(image: Tensor, low: Tensor, span: Tensor) -> Tensor:
    # The small number sends values halfway between two levels, common in 8-bit photos, one way everywhere.
    return ((image - low) / span + 0.5 + 1e-3).floor().clamp(0, 255).long()


def _cumulative(image: Tensor, region: Tensor, low: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """Cumulative shares and counts (B, 3, 256) of the levels in a region."""
    level = _level(image, low, span).flatten(2)
    counts = image.new_zeros(*image.shape[:2], 256)
    counts.scatter_add_(-1, level, region.flatten(2).expand(level.shape).to(image.dtype))
    return counts.cumsum(-1) / counts.sum(-1, keepdim=True).clamp(min=1), counts


def idt(photo: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor, rotations: Tensor) -> Tensor:
    """Give the foreground the full colour distribution of another photo's region, then smooth the change.

    Iterative distribution transfer: rotate the colours, match the three histograms, rotate back, for each
    of ``rotations`` (B, N, 3, 3); see :func:`draw_rotations` (Pitié, Kokaram and Dahyot, "Automated colour
    grading using colour distribution transfer", 2007). Then, as their regrain does, smooth the change where
    the photo is flat.
    """
    moved = photo
    for rotation in rotations.to(photo).unbind(1):
        target, model = mix_channels(rotation, moved), mix_channels(rotation, reference)
        ends = [_region_ends(image, region) for image, region in ((target, mask), (model, reference_mask))]
        low = torch.minimum(ends[0][0], ends[1][0])
        high = torch.maximum(ends[0][1], ends[1][1])
        matched = match_levels(target, mask, model, reference_mask, low, torch.maximum(high, low + 1 / 255))
        moved = moved + mix_channels(rotation.mT, matched - target) * mask
    return _paste(photo + _regrain(photo, moved - photo, mask), photo, mask)


def _region_ends(image: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    inside = region > 0.5
    low = image.masked_fill(~inside, torch.inf).amin(dim=(2, 3), keepdim=True)
    return low, image.masked_fill(~inside, -torch.inf).amax(dim=(2, 3), keepdim=True)


def draw_rotations(uniform: Tensor) -> Tensor:
    """Ten rotations (B, 10, 3, 3), uniform over all, from ``uniform`` (B, 30) (Shoemake 1992)."""
    one, two, three = uniform.view(-1, 10, 3).unbind(-1)
    a, b = (1 - one).sqrt(), one.sqrt()
    two, three = two * 2 * torch.pi, three * 2 * torch.pi
    x, y, z, w = a * two.sin(), a * two.cos(), b * three.sin(), b * three.cos()
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _regrain(photo: Tensor, change: Tensor, mask: Tensor, sweeps: int = 12) -> Tensor:
    """Smooth a change of colours inside the mask where the photo is flat, and keep it at its edges.

    Minimises ``phi |grad D|^2 + psi |D - change|^2`` over D, which is the energy of Pitié's regrain written for
    the change D of the colours, with ``psi = min(g / 5, 1)`` and ``phi = 30 / (1 + 10 g)``, by Jacobi sweeps from
    the coarsest scale to the finest. g is the photo's gradient in grey levels for both; published ports take it
    in [0, 1] for phi, which smooths edges too and so gives up more of the transferred contrast.
    """
    if min(photo.shape[-2:]) > 16:
        area = avg_pool2d(mask, 2, ceil_mode=True)
        photo_half, change_half = (
            avg_pool2d(x * mask, 2, ceil_mode=True) / area.clamp(min=1e-6) for x in (photo, change)
        )
        coarse = _regrain(photo_half, change_half, (area > 0).to(mask.dtype), sweeps)
        smooth = interpolate(coarse, scale_factor=2, mode="nearest")[..., : photo.shape[-2], : photo.shape[-1]]
    else:
        smooth = change
    gray = photo.mean(dim=1, keepdim=True) * 255
    both = mask[..., 1:] * mask[..., :-1], mask[..., 1:, :] * mask[..., :-1, :]  # neighbours inside the mask
    right, down = pad(gray.diff(dim=-1) * both[0], (0, 1)), pad(gray.diff(dim=-2) * both[1], (0, 0, 0, 1))
    gradient = (right.square() + down.square()).sqrt()
    psi, phi = (gradient / 5).clamp(max=1), 30 / (1 + 10 * gradient)
    # Between neighbours: the mean of their phi, and nothing across the edge of the mask.
    across = (phi[..., 1:] + phi[..., :-1]) / 2 * both[0]
    along = (phi[..., 1:, :] + phi[..., :-1, :]) / 2 * both[1]
    weights = (pad(across, (1, 0)), pad(across, (0, 1)), pad(along, (0, 0, 1, 0)), pad(along, (0, 0, 0, 1)))
    total = (psi + sum(weights)).clamp(min=1e-6)
    held = psi * change
    for _ in range(sweeps):
        left, top = pad(smooth[..., :-1], (1, 0)), pad(smooth[..., :-1, :], (0, 0, 1, 0))
        right, below = pad(smooth[..., 1:], (0, 1)), pad(smooth[..., 1:, :], (0, 0, 0, 1))
        near = weights[0] * left + weights[1] * right + weights[2] * top + weights[3] * below
        smooth = torch.where(total > 1e-6, (held + near) / total, smooth)
    return smooth


# --- Changes: what a camera, a photo editor or another light does ------------------------------------


class Photometric(NamedTuple):
    """Settings of :func:`photometric`: numbers, or tensors (B, 1, 1, 1) and, for ``channel_gain``, (B, 3, 1, 1)."""

    gamma: Tensor | float
    gain: Tensor | float
    channel_gain: Tensor | float
    contrast: Tensor | float
    saturation: Tensor | float


def draw_photometric(uniform: Tensor) -> Photometric:
    """Settings from ``uniform`` (B, 7): gamma exp(U(-.7, .7)), gain U(.55, 1.5), gain of each channel
    exp(N(0, .13)), contrast U(.65, 1.5), saturation U(.4, 1.7)."""
    gamma, gain, contrast, saturation, *channels = (column.view(-1, 1, 1, 1) for column in uniform.unbind(1))
    return Photometric(
        gamma=_between(gamma, -0.7, 0.7).exp(),
        gain=_between(gain, 0.55, 1.5),
        channel_gain=(torch.special.ndtri(torch.cat(channels, dim=1)) * 0.13).exp(),
        contrast=_between(contrast, 0.65, 1.5),
        saturation=_between(saturation, 0.4, 1.7),
    )


def photometric(photo: Tensor, mask: Tensor, settings: Photometric) -> Tensor:
    """Change the foreground as a camera or a photo editor would: gamma, gain, white balance, contrast
    about the foreground's mean, saturation about its grey (luma of BT.601); then clip."""
    x = photo.clamp(min=1e-6) ** settings.gamma * settings.gain * settings.channel_gain
    mean, _ = region_statistics(x, mask)
    x = (x - mean) * settings.contrast + mean
    gray = (x * x.new_tensor(RGB_TO_YCBCR[0]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    x = (x - gray) * settings.saturation + gray
    return _paste(x, photo, mask)


_DEGREE = 5


def draw_tone_curves(uniform: Tensor) -> Tensor:
    """Curves (B, 3, 6) from ``uniform`` (B, 24): Bernstein coefficients of degree 5, in [0, 1].

    The straight line k / 5, plus a shared N(0, .18), plus one of N(0, .07) for each channel, cut to [0, 1], with a
    running maximum so that no curve falls. A curve may start above 0 (lifted blacks) and end below 1.
    """
    normal = torch.special.ndtri(uniform).view(-1, 4, _DEGREE + 1)
    line = torch.linspace(0, 1, _DEGREE + 1, dtype=uniform.dtype)
    return (line + 0.18 * normal[:, :1] + 0.07 * normal[:, 1:]).clamp(0, 1).cummax(dim=-1).values


def tone_curves(photo: Tensor, mask: Tensor, curves: Tensor) -> Tensor:
    """Send each channel of the foreground through a smooth rising curve, as a retoucher's curves do.

    ``x' = sum_k b_k B_k(x)`` with B_k the Bernstein polynomials of degree 5 and b the rows of ``curves``
    (B, 3, 6), see :func:`draw_tone_curves`; coefficients that rise give a curve that rises.
    """
    powers = curves.new_zeros(*curves.shape)  # the same polynomial in powers of x
    for j in range(_DEGREE + 1):
        for i in range(j + 1):
            powers[..., j] += comb(_DEGREE, j) * comb(j, i) * (-1) ** (i + j) * curves[..., i]
    powers = powers.to(photo).unsqueeze(-1).unsqueeze(-1)
    x = torch.zeros_like(photo)
    for j in reversed(range(_DEGREE + 1)):
        x = x * photo + powers[:, :, j]
    return _paste(x, photo, mask)


def draw_illuminant(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Temperature (B,) in kelvin and tint (B,) from ``uniform`` (B, 2): 1e6 / U(75, 300), and N(0, .08)."""
    return 1e6 / _between(uniform[:, 0], 75, 300), 0.08 * torch.special.ndtri(uniform[:, 1])


def illuminant(photo: Tensor, mask: Tensor, temperature: Tensor, tint: Tensor) -> Tensor:
    """Light the foreground by a black body of another temperature: white balance gone wrong.

    Von Kries in Bradford's cone space, from 6504 K (no change) to ``temperature`` (B,) in 1667 to 25000 K; the
    luminance of white stays. ``tint`` (B,) then multiplies green by exp(tint).
    """
    to_xyz, to_cones = (torch.tensor(matrix, dtype=torch.float64) for matrix in (RGB_TO_XYZ, _BRADFORD))
    to_cones = to_cones @ to_xyz
    white = torch.cat([temperature.cpu().double(), torch.tensor([6504.0], dtype=torch.float64)])
    white = black_body(white) @ torch.tensor(_BRADFORD, dtype=torch.float64).T
    matrix = to_cones.inverse() @ ((white[:-1] / white[-1]).unsqueeze(-1) * to_cones)
    matrix = matrix * torch.stack([torch.zeros_like(tint), tint, torch.zeros_like(tint)], 1).cpu().exp().unsqueeze(-1)
    relit = mix_channels(matrix.to(photo), srgb_to_linear(photo))
    return _paste(linear_to_srgb(relit.clamp(0, 1)), photo, mask)


def black_body(temperature: Tensor) -> Tensor:
    """XYZ (B, 3), with Y = 1, of black bodies of 1667 to 25000 K (cubic fit of Kim et al. 2002)."""
    t = 1e3 / temperature
    cool = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    hot = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    x = torch.where(temperature <= 4000, cool, hot)
    coolest = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    cool = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    hot = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    y = torch.where(temperature <= 2222, coolest, torch.where(temperature <= 4000, cool, hot))
    return torch.stack([x / y, torch.ones_like(x), (1 - x - y) / y], dim=-1)


# --- All of them by name -----------------------------------------------------------------------------

TRANSFERS = ("reinhard", "xiao", "histogram", "idt")
"""Recipes that take the colours of a reference."""
CHANGES = ("photometric", "curves", "illuminant")
"""Recipes that change light and tone."""
RECIPES = TRANSFERS + CHANGES
"""All of them."""


def recolor(
    recipe: str, photo: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor, uniform: Tensor
) -> Tensor:
    """Make composites by the recipe of that name (:data:`RECIPES`).

    Args:
        recipe: one of :data:`TRANSFERS`, which read the reference, or of :data:`CHANGES`, which do not.
        photo: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 on the foreground.
        reference: (B, 3, H', W'), other photos.
        reference_mask: (B, 1, H', W'), 1 on the region whose colours count.
        uniform: (B, DRAWS) random numbers in (0, 1), float64 on the CPU: all the randomness there is.

    Raises:
        ValueError: there is no recipe of that name.
    """
    match recipe:
        case "reinhard":
            return reinhard(photo, mask, reference, reference_mask)
        case "xiao":
            return xiao(photo, mask, reference, reference_mask)
        case "histogram":
            return match_histograms(photo, mask, reference, reference_mask)
        case "idt":
            return idt(photo, mask, reference, reference_mask, draw_rotations(uniform[:, :30]))
        case "photometric":
            settings = draw_photometric(uniform[:, :7])
            return photometric(photo, mask, Photometric(*(torch.as_tensor(value).to(photo) for value in settings)))
        case "curves":
            return tone_curves(photo, mask, draw_tone_curves(uniform[:, :24]))
        case "illuminant":
            return illuminant(photo, mask, *draw_illuminant(uniform[:, :2]))
    raise ValueError(f"there is no recipe called {recipe!r}, only {', '.join(RECIPES)}.")
