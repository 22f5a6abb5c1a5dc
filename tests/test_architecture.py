"""The network as a table."""

import pytest
import torch

from hdnet_lib import create_model
from hdnet_lib.model.architecture import layer_table, receptive_fields


@pytest.mark.slow
@pytest.mark.parametrize(("name", "total"), [("hdnet", 57.92e9), ("hdnet-lite", 3.784e9)])
def test_arithmetic(name, total):
    flops = layer_table(create_model(name)).groupby("part").flops.sum()
    assert flops.sum() == pytest.approx(total, rel=1e-3)
    # By hand: three pairs of C x C kernels at 64, 128 and 256 pixels, and the kernels' own making.
    width = 32 if name == "hdnet" else 8
    products = sum(2 * 2 * (multiple * width) ** 2 * side**2 for multiple, side in ((8, 128), (4, 128), (2, 256)))
    assert flops["MGD"] == pytest.approx(products, rel=1e-3)
    without = layer_table(create_model(name, decoder_module=None))
    assert flops.sum() - without.flops.sum() == flops["MGD"]
    assert "MGD" not in set(without.part)


@pytest.mark.parametrize("name", ["hdnet-nano", "base", "base+sa", "hdnet-star"])
def test_no_parameter_is_left_out(name):
    model = create_model(name, width=2)
    table = layer_table(model, 64)
    assert table.parameters.sum() == sum(parameter.numel() for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_shapes_and_order():
    table = layer_table(create_model("hdnet-lite"), 128)
    assert list(table.index[:2]) == ["encoder.0", "encoder.1"]
    assert list(table.index[7:10]) == ["bottleneck", "local_dynamic", "decoder.0"]
    assert table.index[-1] == "output"
    assert table.loc["bottleneck", ["channels", "height", "width"]].tolist() == [64, 16, 16]
    assert table.loc["output", ["channels", "height", "width"]].tolist() == [3, 128, 128]


def test_receptive_field_is_what_the_gradient_reaches(monkeypatch):
    model = create_model("hdnet-nano", use_local_dynamic=False)
    monkeypatch.setattr(torch.nn.functional, "instance_norm", lambda x: x)  # it would reach everywhere
    composite = torch.rand(1, 3, 128, 128, requires_grad=True)
    features = model.inspect(composite, torch.zeros(1, 1, 128, 128)).features
    features["bottleneck"][0, :, 8, 8].sum().backward()
    rows = composite.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == receptive_fields()["bottleneck"]
