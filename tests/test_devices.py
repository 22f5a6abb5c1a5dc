"""One policy for all commands. No GPU is asked for: stand-ins say that there is one."""

import copy

import numpy as np
import pytest
import torch
from conftest import random_inputs
from PIL import Image

from hdnet_lib import cli, load_pretrained
from hdnet_lib.inference.load import Autocast
from hdnet_lib.training.config import TrainingConfig
from hdnet_lib.training.loop import _accelerator
from hdnet_lib.utils import device as device_module
from hdnet_lib.utils.device import choose_device, synthesis_device


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_not_there_gets_a_sentence(tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "p.png")
    command = ["harmonize", str(tmp_path / "p.png"), str(tmp_path / "p.png"), "-o", str(tmp_path / "r.png")]
    assert cli.main([*command, "--device", "quantum"]) == 2
    assert capsys.readouterr().err == "hdnet: the device quantum cannot be used here; use auto or cpu.\n"


def test_composites_for_apples_gpu_are_made_on_the_cpu():
    """It has neither float64 nor the eigenvalues that a recipe needs."""
    assert [synthesis_device(name) for name in ("cpu", "cuda:1", "mps", torch.device("mps"))] == [
        "cpu", "cuda:1", "cpu", "cpu",
    ]  # fmt: skip


def test_training_on_apples_gpu_is_in_float32(monkeypatch, tmp_path):
    seen = {}

    class Stub:
        def __init__(self, **arguments):
            seen.update(arguments)
            self.num_processes = 1

    monkeypatch.setattr("hdnet_lib.training.loop.Accelerator", Stub)
    monkeypatch.setattr("hdnet_lib.training.loop.choose_device", lambda name: "mps")
    _accelerator(TrainingConfig(precision="bf16"), tmp_path / "w.safetensors")
    assert (seen["mixed_precision"], seen["cpu"]) == ("no", False)


def test_harmonize_takes_a_device(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cli, "choose_device", lambda name: asked.append(name) or device_module.choose_device("cpu"))
    pixels = np.full((40, 40, 3), 90, np.uint8)
    pixels[10:30, 10:30] = 200
    Image.fromarray(pixels).save(tmp_path / "p.png")
    Image.fromarray(pixels[..., 0] == 200).save(tmp_path / "m.png")
    files = [str(tmp_path / name) for name in ("p.png", "m.png")]
    assert cli.main(["harmonize", *files, "-o", str(tmp_path / "r.png"), "--device", "cuda"]) == 0
    assert asked == ["cuda"]


@torch.inference_mode()
def test_a_copy_of_a_network_in_bf16_computes_with_its_own_weights():
    model = Autocast(load_pretrained("hdnet-lite"))
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.mul_(0.5)
    inputs = random_inputs()
    assert not torch.allclose(twin(*inputs), model(*inputs), atol=1e-3)
    assert model(*inputs).dtype == torch.float32
