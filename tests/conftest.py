import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from hdnet_lib import create_model

REPOSITORY = Path(__file__).parents[1]

# No test depends on a clock, and a failure can be replayed.
settings.register_profile("hdnet", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("hdnet")
torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture
def nano():
    """A tiny network with fixed weights, scaled up so that its output is not near zero."""
    torch.manual_seed(0)
    model = create_model("hdnet-nano").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


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
