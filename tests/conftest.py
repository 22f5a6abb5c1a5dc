import os
import zlib
from pathlib import Path

import numpy as np
import prepare_iharmony4
import pytest
import torch
from hypothesis import settings
from PIL import Image

from hdnet_lib import create_model
from hdnet_lib.composites.mini import build

REPOSITORY = Path(__file__).parents[1]

# No test depends on a clock, and a failure can be replayed.
settings.register_profile("hdnet", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("hdnet")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))


@pytest.fixture
def nano():
    """A tiny network with fixed weights, scaled up so that its output is not near zero."""
    torch.manual_seed(0)
    model = create_model("hdnet-nano").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """The mini data set, built anew."""
    out = tmp_path_factory.mktemp("data") / "mini"
    build(out)
    return out


@pytest.fixture(scope="session")
def small(mini, tmp_path_factory):
    """The mini data set at 64 pixels; do not change it."""
    out = tmp_path_factory.mktemp("data") / "small"
    prepare_iharmony4.prepare(mini, out, 64, keep_aspect=False, incomplete=False, workers=2)
    return out


@pytest.fixture
def table(tmp_path):
    """A table of twelve photos, two of them in the validation split; the first has no mask, the second two."""
    names = [f"photo{number}.png" for number in range(200)]
    held_out = [name for name in names if zlib.crc32(name.encode()) % 20 == 0][:2]
    names = [name for name in names if zlib.crc32(name.encode()) % 20][:10] + held_out
    rng = np.random.default_rng(0)
    lines = ["image,masks"]
    for index, name in enumerate(names):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((60, 50)).save(tmp_path / name)
        mask = np.zeros((50, 60), np.uint8)
        mask[10:40, 10:30] = 255
        Image.fromarray(mask).save(tmp_path / f"mask_{name}")
        lines.append(f"{name}," + ["", f"mask_{name} mask_{name}", f"mask_{name}"][min(index, 2)])
    path = tmp_path / "pool.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def random_inputs(batch=1, height=32, width=32, seed=0):
    """Composite in [-1, 1] and a binary mask with both regions in every image."""
    generator = torch.Generator().manual_seed(seed)
    composite = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    mask = torch.zeros(batch, 1, height, width)
    for index in range(batch):
        mask[index, :, 8 : height // 2 + 8 * (index % 2), 8 : width - 8] = 1
    return composite, mask


def check_gradients(module, feature, mask):
    """Compare the gradients of the feature and of every parameter with finite differences, in float64."""
    names, values = zip(*module.named_parameters(), strict=True)
    inputs = [feature.requires_grad_(), *(value.detach().clone().requires_grad_() for value in values)]

    def run(feature, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (feature, mask))

    assert torch.autograd.gradcheck(run, inputs)
