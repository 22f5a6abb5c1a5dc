import numpy as np
import torch

from hdnet_lib.data.images import to_pixels, to_tensor


def test_pixels_and_tensors_round_trip():
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert np.array_equal(to_pixels(to_tensor(pixels)), pixels)
    mask = pixels[..., 0] > 7
    assert torch.equal(to_tensor(mask)[0, 0], torch.from_numpy(mask).float())
