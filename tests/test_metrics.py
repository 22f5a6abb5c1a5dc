import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from hdnet_lib.data.samples import ratio_bin
from hdnet_lib.evaluation.metrics import PROTOCOLS, Protocol, score

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)
OUTPUT = np.clip(REAL + RNG.integers(-30, 31, REAL.shape), 0, 255).astype(np.uint8)
COMPOSITE = np.clip(REAL + RNG.integers(-9, 10, REAL.shape), 0, 255).astype(np.uint8)
MASK = np.zeros(REAL.shape[:2], bool)
MASK[4:20, 10:30] = True


def test_paper_protocol_equals_scikit_image_on_the_pasted_image():
    pasted = np.where(MASK[..., None], OUTPUT, REAL)
    result = score(OUTPUT, REAL, MASK)
    assert result.mse == pytest.approx(mean_squared_error(REAL, pasted))
    assert result.psnr == pytest.approx(peak_signal_noise_ratio(REAL, pasted, data_range=255))
    assert result.ssim == pytest.approx(structural_similarity(REAL, pasted, channel_axis=2, data_range=255))
    assert result.fmse == pytest.approx(mean_squared_error(REAL[MASK], OUTPUT[MASK]))


def test_values_worked_by_hand():
    real = np.zeros((10, 10, 3), np.uint8)
    output, mask = real.copy(), np.zeros((10, 10), bool)
    mask[:2, :5] = True  # a tenth of the image
    output[mask] = 10
    output[9, 9] = 200  # a background error, which the paper's protocol does not see
    result = score(output, real, mask)
    assert result.mse == pytest.approx(10.0)
    assert result.fmse == pytest.approx(100.0)
    assert result.psnr == pytest.approx(10 * math.log10(255**2 / 10))
    counted = score(output, real, mask, protocol=Protocol(background="output"))
    assert counted.mse == pytest.approx(10 + 400)
    assert counted.fmse == pytest.approx((10 + 400) * 10)  # the area form lets the background leak in
    masked = score(output, real, mask, protocol=Protocol(background="output", fmse="masked"))
    assert masked.fmse == pytest.approx(100.0)


def test_each_background():
    pasted = {"real": REAL, "output": OUTPUT, "composite": COMPOSITE}
    for background, image in pasted.items():
        result = score(OUTPUT, REAL, MASK, COMPOSITE, Protocol(background=background))
        assert result.mse == pytest.approx(mean_squared_error(REAL, np.where(MASK[..., None], OUTPUT, image)))


def test_each_peak():
    real = (REAL // 2).astype(np.uint8)
    mse = mean_squared_error(real, OUTPUT)
    for peak, value in {"255": 255, "target max": int(real.max()), "output range": int(np.ptp(OUTPUT))}.items():
        result = score(OUTPUT, real, MASK, protocol=Protocol(background="output", peak=peak))
        assert result.psnr == pytest.approx(10 * math.log10(value**2 / mse))


@pytest.mark.parametrize(("rounding", "expected"), [("truncate", 0.0), ("round", 1.0), ("none", 0.75**2)])
def test_each_rounding(rounding, expected):
    real = np.zeros((8, 8, 3))
    result = score(real + 0.75, real, np.ones((8, 8), bool), protocol=Protocol(rounding=rounding))
    assert result.mse == pytest.approx(expected)


def test_identical_images():
    result = score(REAL, REAL, MASK)
    assert result == (0.0, 0.0, math.inf, pytest.approx(1.0))


@given(seed=st.integers(0, 1000))
def test_the_two_forms_of_fmse_agree_when_the_background_is_real(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 9)) < 0.3
    mask[0, 0] = True
    output, real = rng.integers(0, 256, (2, 12, 9, 3), dtype=np.uint8)
    area, masked = (score(output, real, mask, protocol=Protocol(fmse=form)).fmse for form in ("area", "masked"))
    assert area == pytest.approx(masked)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_named_protocol_scores(name):
    assert score(OUTPUT, REAL, MASK, COMPOSITE, name).psnr > 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"protocol": "mine"}, "no protocol called"),
        ({"mask": MASK.astype(np.uint8)}, "must be a bool array"),
        ({"mask": np.zeros_like(MASK)}, "mask is empty"),
        ({"output": OUTPUT[:-1]}, "output has the shape"),
        ({"real": REAL[..., 0]}, "real has the shape"),
        ({"protocol": "s2crnet"}, "give the composite"),
        ({"real": REAL * 0, "protocol": "idih"}, "peak, 'target max', is 0"),
        ({"output": OUTPUT * np.nan, "protocol": "idih"}, "not finite"),
        ({"output": OUTPUT[:6], "real": REAL[:6], "mask": MASK[:6]}, "at least 7x7"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        score(**({"output": OUTPUT, "real": REAL, "mask": MASK} | arguments))


def test_unknown_protocol_field_gets_a_sentence():
    with pytest.raises(ValueError, match="peak must be one of"):
        Protocol(peak="1")


def test_ratio_bins_are_closed_above():
    assert [ratio_bin(r) for r in (1e-4, 0.05, 0.0501, 0.15, 0.2, 1.0)] == [
        "0-5 %", "0-5 %", "5-15 %", "5-15 %", "15-100 %", "15-100 %",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="lies in"):
        ratio_bin(0.0)
