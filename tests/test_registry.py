import json
from pathlib import Path

import pytest
import torch
from conftest import random_inputs
from PIL import Image
from safetensors.torch import load_file, save_file

from hdnet_lib import create_model, list_pretrained, load_pretrained, load_released_state_dict, load_weights, registry
from hdnet_lib.cli import main

PARITY = Path(__file__).parent / "data" / "released_width4.safetensors"
"""What the authors' code computes with random weights; its header tells how it was made."""


def released(path=PARITY):
    tensors = load_file(path)
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    return tensors, load_released_state_dict(weights), weights


@torch.no_grad()
def test_parity_with_the_released_network():
    tensors, model, _ = released()
    output = model(tensors["input"], tensors["mask"])
    torch.testing.assert_close(output, tensors["raw_output"], rtol=0, atol=1e-4)


@torch.no_grad()
def test_parity_of_each_module():
    tensors, model, _ = released()
    modules = {"LD": model.local_dynamic, "MGD11": model.dynamics["4"], "RAIN72": model.decoder[0].rain}
    for name, module in modules.items():
        result = module(tensors[f"act.{name}.in"], tensors["mask"])
        if name == "MGD11":  # the file holds its middle
            result = result[..., 8:24, 8:24]
        torch.testing.assert_close(result, tensors[f"act.{name}.out"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_papers_formulation_is_not_the_released_one():
    """The tolerance above would notice."""
    tensors, model, _ = released()
    paper = create_model("hdnet", width=4)
    paper.load_state_dict(model.state_dict())
    output = paper(tensors["input"], tensors["mask"])
    assert (output - tensors["raw_output"]).abs().max() > 1e-3


def test_released_weights_of_data_parallel_and_bad_ones():
    tensors, model, weights = released()
    prefixed = load_released_state_dict({f"module.{key}": value for key, value in weights.items()})
    inputs = tensors["input"], tensors["mask"]
    assert torch.equal(prefixed(*inputs), model(*inputs))
    with pytest.raises(ValueError, match="lacks 1 tensors"):
        load_released_state_dict({key: value for key, value in weights.items() if key != "model_out.1.bias"})
    with pytest.raises(ValueError, match="no tensor called 'cbam"):
        load_released_state_dict(weights | {"cbam.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="has the shape"):
        load_released_state_dict(weights | {"model_out.1.bias": torch.zeros(4)})


def released_names(model):
    """Our names as the released code spells them: the inverse of the renaming, written on its own."""
    layers = ["72", "8", "9", "10", "11", "12", "13"]
    for key in model.state_dict():
        part, *rest = key.split(".")
        if part == "encoder":
            yield key, "model_layer0.weight" if rest[0] == "0" else f"model_layer{rest[0]}.1.weight"
        elif part == "decoder" and rest[1] == "conv":
            yield key, f"model_layer{layers[int(rest[0])]}.1.weight"
        elif part == "decoder":
            yield key, f"model_layer{layers[int(rest[0])]}norm.{rest[2]}"
        elif part == "dynamics":
            number = {"squeeze": 1, "expand": 3}[rest[1]]
            yield key, f"model_layer{layers[int(rest[0])]}att.conv_kernel.{number}.{rest[2]}"
        elif part == "bottleneck":
            yield key, "model_layer71.1.weight"
        elif part == "output":
            yield key, f"model_out.1.{rest[0]}"
        else:
            yield key, f"LD.linear.{rest[1]}"


def test_released_names_round_trip():
    torch.manual_seed(0)
    model = create_model("hdnet", width=2, local_dynamic="released").eval()
    state = model.state_dict()
    loaded = load_released_state_dict({theirs: state[ours] for ours, theirs in released_names(model)})
    inputs = random_inputs()
    assert torch.equal(loaded(*inputs), model(*inputs))


def test_weights_of_a_training_run_load_by_path(tmp_path):
    model = create_model("hdnet-nano")
    path = tmp_path / "w.safetensors"
    save_file(model.state_dict(), path, metadata={"config": json.dumps({"model": "hdnet-nano"})})
    assert torch.equal(load_weights(path)(*random_inputs()), model(*random_inputs()))
    for config in ("{ not JSON", "[]", "{}"):
        save_file(model.state_dict(), path, metadata={"config": config})
        with pytest.raises(ValueError, match="does not name its model"):
            load_weights(path)
    save_file(model.state_dict(), path, metadata={"config": json.dumps({"model": "hdnet-lite"})})
    with pytest.raises(ValueError, match="do not fit the model"):
        load_weights(path)
    save_file(model.state_dict(), path)
    with pytest.raises(ValueError, match="does not name its model"):
        load_weights(path)
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        load_weights(path)


def test_something_else_is_not_a_released_state_dict():
    with pytest.raises(ValueError, match="maps names to tensors"):
        load_released_state_dict(None)
    with pytest.raises(ValueError, match="not a state dict of the released HDNet"):
        load_released_state_dict({"conv.weight": torch.zeros(1)})


@pytest.mark.slow
@pytest.mark.parametrize("name", list_pretrained())
def test_pretrained_weights_load_and_say_what_they_are(name):
    model = load_pretrained(name)
    assert not model.training
    entry = list_pretrained()[name]
    assert len(entry.trained_on) > 20
    assert model(*random_inputs()).isfinite().all()


def test_changed_or_unknown_weights_are_refused(tmp_path, monkeypatch):
    for file in registry.WEIGHTS.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert any(name.startswith("w8-") for name in list_pretrained())
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    assert set(list_pretrained()) == {"hdnet", "hdnet-lite", "hdnet-lite-loose"}  # as in the installed package
    name, entry = "hdnet-lite", list_pretrained()["hdnet-lite"]
    load_pretrained(name)
    weights = tmp_path / entry.file
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ValueError, match="sha256 differs"):
        load_pretrained(name)
    weights.unlink()
    with pytest.raises(ValueError, match="no weights for 'hdnet-lite' are here"):
        load_pretrained(name)
    with pytest.raises(ValueError, match="no weights for 'hdnet-xl'"):
        load_pretrained("hdnet-xl")


def test_index_holds_nothing_else():
    listed = {entry["file"] for entry in json.loads((registry.WEIGHTS / "index.json").read_text()).values()}
    assert listed == {path.relative_to(registry.WEIGHTS).as_posix() for path in registry.WEIGHTS.rglob("*.safetensors")}


@pytest.mark.parametrize(("name", "overrides"), [("unet", {}), ("hdnet", {"depth": 3})])
def test_unknown_models_and_arguments_get_a_sentence(name, overrides):
    with pytest.raises(ValueError, match=r"no model called|unexpected keyword"):
        create_model(name, **overrides)


@pytest.mark.parametrize("command", [["harmonize", "p.png", "m.png", "-o", "r.png", "--model"], ["export"],
                                     ["evaluate", "mini", "--models"]])  # fmt: skip
def test_pickled_weights_are_pointed_to_the_reader_and_never_opened(mini, tmp_path, monkeypatch, capsys, command):
    """The file would write "opened" if it were."""

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    torch.save(Trap(), tmp_path / "net.pth")
    Image.new("RGB", (40, 40)).save(tmp_path / "p.png")
    mask = Image.new("L", (40, 40))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "m.png")
    monkeypatch.chdir(tmp_path)
    assert main([*command, "net.pth", *(["net.onnx"] if command == ["export"] else [])]) == 2
    assert "load_released_state_dict(torch.load(path, weights_only=True))" in capsys.readouterr().err
    assert not (tmp_path / "opened").exists()
