"""What leaves as ONNX computes what the library does; so do bfloat16 and int8, as far as they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_inputs

from hdnet_lib import cli, create_model, harmonize, load_pretrained
from hdnet_lib.data.iharmony4 import Triplets
from hdnet_lib.evaluation.methods import ModelMethod
from hdnet_lib.evaluation.scoring import evaluate, score_methods
from hdnet_lib.inference import onnx
from hdnet_lib.inference.load import Autocast, load_model
from hdnet_lib.inference.onnx import OnnxModel, as_convolution, export_onnx

pytestmark = pytest.mark.slow

REAL = Path(__file__).parents[2] / "shared" / "triplets"
SIZES = [(1, 256, 256), (3, 32, 64), (2, 96, 32)]


def largest_difference(model, other, batch, height, width):
    composite, mask = random_inputs(batch, height, width)
    with torch.inference_mode():
        return (model(composite, mask) - other(composite, mask)).abs().max().item()


@pytest.fixture(scope="module")
def files(mini, tmp_path_factory):
    """HDNet-lite as it ships, in float32 and, by the command, in int8."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(load_pretrained(), folder / "lite.onnx")
    int8 = str(folder / "lite-int8.onnx")
    assert cli.main(["export", "hdnet-lite", int8, "--int8", "--calibration", str(mini)]) == 0
    assert {path.name for path in folder.iterdir()} == {"lite.onnx", "lite-int8.onnx"}
    return folder


def test_any_batch_and_size_come_out_as_from_the_library(files):
    for size in SIZES:
        assert largest_difference(OnnxModel(files / "lite.onnx"), load_pretrained(), *size) < 1e-5


def test_k_and_the_learned_mask_are_in_the_graph(nano, tmp_path):
    torch.manual_seed(1)
    model = create_model("hdnet-nano", learned_mask=True, k=9).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    export_onnx(model, tmp_path / "nano.onnx")
    exported = OnnxModel(tmp_path / "nano.onnx")
    for size in SIZES:
        assert largest_difference(exported, model, *size) < 1e-4
    assert largest_difference(exported, nano, *SIZES[0]) > 1e-3  # another network would be noticed


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
def test_a_transposed_convolution_is_a_plain_one(kernel, stride):
    torch.manual_seed(0)
    transposed = torch.nn.ConvTranspose2d(5, 7, kernel, stride, padding=1, bias=False)
    feature = torch.randn(2, 5, 6, 9)
    torch.testing.assert_close(as_convolution(transposed)(feature), transposed(feature))


def changes(files, examples):
    """Mean change of the PSNR from float32 eager, in dB, of bf16, ONNX and int8."""
    methods = {"eager": ModelMethod(load_pretrained()), "bf16": ModelMethod(Autocast(load_pretrained()))}
    methods |= {name: ModelMethod(OnnxModel(files / f"{name}.onnx")) for name in ("lite", "lite-int8")}
    scores = score_methods(examples, methods, ["hdnet"]).pivot(index="name", columns="method", values="psnr")
    return scores.sub(scores.eager, axis=0).mean()


def check_changes(changed):
    assert abs(changed["lite"]) < 0.001
    assert abs(changed["bf16"]) < 0.05
    assert abs(changed["lite-int8"]) < 0.15
    assert changed["lite-int8"] != 0


def test_bf16_and_int8_keep_the_quality(files, mini):
    check_changes(changes(files, Triplets(mini, limit=32)))


@pytest.mark.skipif(not REAL.is_dir(), reason="no real composites beside the project")
def test_bf16_and_int8_keep_the_quality_on_real_composites(files, tmp_path):
    """Objects of one day in a webcam's picture of another."""
    (tmp_path / "day2night_rebuilt").symlink_to(REAL / "day2night_rebuilt")
    check_changes(changes(files, Triplets(tmp_path)))


def test_int8_is_int8(files):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(files / "lite-int8.onnx").graph
    integers = [weight for weight in graph.initializer if weight.data_type == onnx.TensorProto.INT8 and weight.dims]
    assert sum(np.prod(weight.dims) for weight in integers) > 0.8 * sum(
        p.numel() for p in load_pretrained().parameters()
    )
    assert (files / "lite-int8.onnx").stat().st_size < 0.6 * (files / "lite.onnx").stat().st_size


def test_a_photo_is_harmonised_alike(files, mini):
    example = Triplets(mini)[0]
    results = [
        np.asarray(harmonize(model, example.composite, example.mask), np.int16)
        for model in (load_pretrained(), load_model(str(files / "lite.onnx")))
    ]
    assert np.abs(results[0] - results[1]).max() <= 1
    assert (results[0] != example.composite).any()


def test_evaluate_takes_what_the_command_writes(files, mini):
    table = evaluate(mini, [str(files / "lite-int8.onnx"), "hdnet-lite"], limit=4, protocols=["hdnet"])
    psnr = table.groupby("method").psnr.mean()
    assert psnr["lite-int8"] == pytest.approx(psnr["hdnet-lite"], abs=0.15)


def test_bf16_can_be_chosen(mini, tmp_path):
    options = ["--protocols", "hdnet", "--limit", "2", "--models", "hdnet-lite"]
    table = str(tmp_path / "scores.csv")
    assert cli.main(["evaluate", str(mini), "-o", table, *options, "--precision", "bf16"]) == 0
    assert cli.main(["evaluate", str(mini), "-o", table, *options]) == 2  # this table is of another precision


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export", "hdnet-lite", "lite.pt"], "use a file name that ends with .onnx"),
        (["export", "hdnet-lite", "nowhere/lite.onnx"], "the folder nowhere does not exist"),
        (["export", "lite.onnx", "again.onnx"], "lite.onnx is ONNX already"),
        (["export", "hdnet-lite", "lite.onnx", "--int8", "--calibration", "nowhere"], "nowhere"),
        (["evaluate", "mini", "--models", "text.onnx"], "text.onnx: ONNX Runtime cannot read this file"),
        (["evaluate", "mini", "--models", "missing.onnx"], "missing.onnx: there is no such file"),
        (["evaluate", "mini", "--models", "text.onnx", "--precision", "bf16"], "the precision that it was exported"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("no network")
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


def test_a_network_of_others_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(
            onnx.helper.make_graph([node], "other", [value], [output]), opset_imports=opset, ir_version=10
        ),
        tmp_path / "other.onnx",
    )
    with pytest.raises(ValueError, match="no network that `hdnet export` wrote"):
        OnnxModel(tmp_path / "other.onnx")


def test_without_the_packages_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "a_package_that_is_not_there"))
    with pytest.raises(ValueError, match=r"a_package_that_is_not_there: install them with pip install 'hdnet-lab"):
        export_onnx(load_pretrained(), tmp_path / "lite.onnx")


def test_no_composites_no_int8(tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        export_onnx(load_pretrained(), tmp_path / "lite.onnx", [])
    assert not list(tmp_path.iterdir())
