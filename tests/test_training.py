import csv
import importlib.util
import json
import math
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch._dynamo.exc import TorchDynamoException

from hdnet_lib import create_model
from hdnet_lib.cli import main
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.data.dataset import TripletDataset
from hdnet_lib.data.masks import perturb_mask
from hdnet_lib.data.samples import to_batch, to_samples
from hdnet_lib.model.global_dynamic import GlobalDynamic
from hdnet_lib.model.hdnet import paste
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.model.rain import RAIN
from hdnet_lib.peers.discriminator import RegionDiscriminator
from hdnet_lib.registry import load_weights
from hdnet_lib.training import checkpoint, loop
from hdnet_lib.training.adversary import Adversary
from hdnet_lib.training.checkpoint import load_last, read_log
from hdnet_lib.training.config import PRESETS, TrainingConfig, learning_rate_factor
from hdnet_lib.training.loop import compile_network, gains, train, validate


def run(table, output, minutes=math.inf, **changes):
    torch.manual_seed(123)  # training must not depend on the state it finds
    settings = {
        "model": "hdnet-nano",
        "data": str(table),
        "validate_every": 4,
        "stages": ((16, 24), (32, 8)),
        "batch_size": 4,
    }
    return train(TrainingConfig(**(settings | changes)), output, minutes)


def test_training_writes_weights_and_log_and_repeats_itself(table, tmp_path):
    model = run(table, tmp_path / "one.safetensors")
    run(table, tmp_path / "two.safetensors")
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    fresh = create_model("hdnet-nano")
    fresh.load_state_dict(one)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        header = file.metadata()
    assert json.loads(header["config"])["stages"] == [[16, 24], [32, 8]]
    with (tmp_path / "one.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["side"]) for row in rows] == [("4", "16"), ("8", "32")]
    assert all(0 < float(row["validation_psnr"]) < 60 for row in rows)
    assert all(abs(float(row["gain"])) < 40 and row["gain"] != row["robust_gain"] for row in rows)
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    assert header["step"] == best["step"]
    assert header["validation_loss"] == best["validation_loss"]
    assert not list(tmp_path.glob(".*.part"))
    assert len({path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}) == 1  # weights are no secret


def test_gains_by_mask_are_over_the_composite_that_is_given(table):
    samples = to_samples(PhotoDataset(table, "validation", 32).composites(range(4)))
    real = to_batch(*samples).real
    told = {"exact": samples, "smaller": [s._replace(mask=perturb_mask(s.mask, "eroded", 1)) for s in samples]}

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, composite, mask):
            return real * self.scale

    found = gains(Oracle(), told)
    assert found["exact"] > found["smaller"] > 0


def test_a_validation_of_unchanged_composites_is_logged(table, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "to_samples", lambda batch: [s._replace(composite=s.real) for s in to_samples(batch)])
    run(table, tmp_path / "w.safetensors")
    assert all(float(row["gain"]) <= 0 for row in log(tmp_path / "w.safetensors"))


@pytest.mark.slow
def test_training_reduces_the_loss(table, tmp_path):
    losses = []
    for samples in (8, 1600):
        output = tmp_path / f"{samples}.safetensors"
        run(table, output, stages=((16, samples),), batch_size=8, validate_every=100, initialization="normal")
        with output.with_suffix(".csv").open() as file:
            losses.append(float(list(csv.DictReader(file))[-1]["validation_psnr"]))
    assert losses[1] > losses[0] + 1


@pytest.mark.slow
def test_training_continues_from_weights(table, tmp_path):
    run(table, tmp_path / "one.safetensors")
    start = str(tmp_path / "one.safetensors")
    run(table, tmp_path / "two.safetensors", start=start, learning_rate=1e-9)
    one, two = load_file(start), load_file(tmp_path / "two.safetensors")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    with pytest.raises(ValueError, match="do not fit the model"):
        run(table, tmp_path / "three.safetensors", start=start, model="hdnet-lite")
    with pytest.raises(ValueError, match="do not fit the model"):
        run(table, tmp_path / "three.safetensors", start=str(table))


@pytest.mark.slow
def test_a_run_starts_near_the_identity_unless_told_otherwise(table, tmp_path):
    batch = PhotoDataset(table, "validation", 32).composites(range(128))
    losses = {}
    for start in ("identity", "normal"):
        output = tmp_path / f"{start}.safetensors"
        run(table, output, learning_rate=1e-12, ema_decay=0.0, initialization=start, model="hdnet-lite")
        losses[start] = validate(load_last(output), batch)[0]
    assert losses["identity"] < losses["normal"] / 2
    assert losses["identity"] < 2 * validate(lambda composite, mask: composite, batch)[0]


def test_a_compiler_that_fails_gets_one_sentence(table, tmp_path, monkeypatch):
    def fails(*arguments):
        raise TorchDynamoException("no compiler\nmuch more")

    monkeypatch.setattr(RAIN, "compile", lambda module, dynamic: setattr(module, "forward", fails))
    with pytest.raises(ValueError, match=r"torch\.compile cannot be used here: no compiler; train without it\."):
        run(table, tmp_path / "w.safetensors", compile=True)


def test_on_a_cpu_rain_and_mgd_alone_are_compiled_and_on_a_gpu_the_whole(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, dynamic: compiled.append(type(module)))
    monkeypatch.setattr(torch, "compile", lambda network: "compiled")
    network = create_model("hdnet-nano")
    assert compile_network(network, torch.device("cpu")) is network
    assert compiled.count(RAIN) == 7 and compiled.count(GlobalDynamic) == 3 and len(compiled) == 10
    assert compile_network(network, torch.device("cuda")) == "compiled"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_training_is_that_of_the_modules_as_they_are(table, tmp_path):
    run(table, tmp_path / "plain.safetensors", precision="fp32")
    run(table, tmp_path / "compiled.safetensors", precision="fp32", compile=True)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "compiled"))
    assert one.keys() == two.keys()
    # Eight steps move a weight by 0.002 or more; where its gradient is nearly nothing, rounding decides how far.
    assert all((one[name] - two[name]).abs().mean() < 5e-4 for name in one)


def test_composites_made_for_several_steps_at_once_are_the_same(table):
    config = TrainingConfig(model="hdnet-nano", data=str(table), batch_size=4)

    class OnGpu:
        num_processes, process_index, device = 1, 0, torch.device("cpu")

    plan = [16] * 5 + [32] * 3
    one = list(loop._batches(config, plan, 2, OnGpu))
    OnGpu.device = type("Device", (), {"type": "cuda"})
    datasets = {16: PhotoDataset(table, size=16), 32: PhotoDataset(table, size=32)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_dataset", lambda config, split, side, accelerator: datasets[side])
        patch.setattr(loop, "_to", lambda device, batch: batch)
        patch.setattr(loop, "GPU_SYNTHESIS_PIXELS", 8 * 16**2)
        two = list(loop._batches(config, plan, 2, OnGpu))
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
def test_the_last_weights_can_be_looked_at(table, tmp_path):
    output = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        load_last(output)
    run(table, output, learning_rate=0.3, ema_decay=0.0)
    losses = [row["validation_loss"] for row in read_log(output)]
    batch = PhotoDataset(table, "validation", 32).composites(range(128))
    assert validate(load_last(output), batch)[0] == pytest.approx(losses[-1], rel=1e-4)
    assert validate(load_weights(output), batch)[0] == pytest.approx(min(losses), rel=1e-4)


def test_the_log_goes_to_tensorboard_where_that_is_installed(table, tmp_path):
    run(table, tmp_path / "w.safetensors")
    if importlib.util.find_spec("tensorboard"):
        assert list((tmp_path / "w.tensorboard").rglob("events*"))
    else:
        assert sorted(path.name for path in tmp_path.glob("w.*")) == ["w.checkpoint", "w.csv", "w.safetensors"]


def test_schedule():
    assert learning_rate_factor(0.0) == 0
    assert learning_rate_factor(0.02) == 1
    assert learning_rate_factor(0.51) == pytest.approx(0.5)
    assert learning_rate_factor(1.0) == pytest.approx(0)


def test_nan_stops_and_writes_nothing(table, tmp_path):
    with pytest.raises(FloatingPointError, match="try a lower learning rate"):
        run(table, tmp_path / "w.safetensors", learning_rate=1e30)
    assert not (tmp_path / "w.safetensors").exists()


def log(output):
    """The curves of a log, without its times."""
    with output.with_suffix(".csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def same_run(one, other):
    tensors = [
        [load_file(path.with_suffix(suffix)) for suffix in (".safetensors", ".checkpoint")] for path in (one, other)
    ]
    return log(one) == log(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(*tensors, strict=True)
    )


LONG = {"stages": ((16, 64), (32, 32)), "validate_every": 4}


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_end(table, tmp_path):
    """Bit for bit, through a change of stage, stopped at every validation."""
    whole, pieces = tmp_path / "whole.safetensors", tmp_path / "pieces.safetensors"
    run(table, whole, **LONG)
    settings = TrainingConfig(model="hdnet-nano", data=str(table), batch_size=4, **LONG)
    stops = 0
    while train(settings, pieces, minutes=0) is None:
        stops += 1
    assert stops == 5
    assert same_run(whole, pieces)
    before = pieces.read_bytes(), pieces.with_suffix(".csv").read_bytes()
    assert train(settings, pieces) is not None  # a run that has ended stays as it is
    assert (pieces.read_bytes(), pieces.with_suffix(".csv").read_bytes()) == before


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_end(table, tmp_path):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    run(table, whole, **LONG)
    code = (
        "import sys; from hdnet_lib.training import TrainingConfig, train\n"
        f"train(TrainingConfig(model='hdnet-nano', data=sys.argv[1], batch_size=4, **{LONG}), sys.argv[2])"
    )
    rng, kills = random.Random(0), 0
    while kills < 4:
        process = subprocess.Popen([sys.executable, "-c", code, str(table), str(killed)], stderr=subprocess.PIPE)
        process.stderr.read(1)  # the progress bar has begun: it trains
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.communicate()
        kills += 1
    run(table, killed, **LONG)
    assert same_run(whole, killed)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["safetensors", "csv", "checkpoint"])
def test_a_run_killed_while_it_saves_for_the_first_time_goes_on(table, tmp_path, monkeypatch, last):
    """Ended right after each of the three files."""
    output, whole, real = tmp_path / "w.safetensors", tmp_path / "whole.safetensors", checkpoint.atomic_write

    @contextmanager
    def ends(path):
        with real(path) as part:
            yield part
        if path.suffix == f".{last}":
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "atomic_write", ends)
    with pytest.raises(KeyboardInterrupt):
        run(table, output, **LONG)
    monkeypatch.undo()
    run(table, output, **LONG)
    run(table, whole, **LONG)
    assert same_run(whole, output)


def test_validation_is_at_the_last_side(table, tmp_path, monkeypatch):
    sides = []
    monkeypatch.setattr(loop, "validate", lambda _, batch: sides.append(batch.mask.shape[-1]) or (1.0, 20.0))
    run(table, tmp_path / "w.safetensors")
    assert set(sides) == {32}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PhotoDataset, TripletDataset])
def test_loose_masks_are_for_training_alone(table, small, tmp_path, monkeypatch, kind):
    data, validated = table if kind is PhotoDataset else small, []
    monkeypatch.setattr(loop, "validate", lambda _, batch: validated.append(batch) or (1.0, 20.0))
    monkeypatch.setattr(loop, "gains", lambda *_: {"exact": 0.0})
    for share in (0.0, 1.0):
        run(data, tmp_path / f"{share}.safetensors", mask_jitter=share, stages=((32, 8),))
    exact = kind(data, "validation", 32).composites(range(128))
    assert all(torch.equal(a, b) for batch in validated for a, b in zip(batch, exact, strict=True))
    weights = [load_file(tmp_path / f"{share}.safetensors") for share in (0.0, 1.0)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_trains_and_validates_with_its_recipe(table, small, tmp_path, monkeypatch):
    validated = []
    monkeypatch.setattr(loop, "validate", lambda _, batch: validated.append(batch) or (1.0, 20.0))
    monkeypatch.setattr(loop, "gains", lambda *_: {"exact": 0.0})
    for recipe in ("mix", "curves"):
        run(table, tmp_path / f"{recipe}.safetensors", recipe=recipe, stages=((16, 8),))
    curves = PhotoDataset(table, "validation", 16, recipe="curves").composites(range(128))
    assert torch.equal(validated[1].composite, curves.composite)
    weights = [load_file(tmp_path / f"{recipe}.safetensors") for recipe in ("mix", "curves")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with pytest.raises(ValueError, match="has composites of its own: leave out --recipe curves"):
        run(small, tmp_path / "w.safetensors", recipe="curves")


def test_weights_that_are_no_numbers_are_never_saved(table, tmp_path):
    output = tmp_path / "w.safetensors"
    with pytest.raises(FloatingPointError, match="try a lower learning rate"):
        run(table, output, learning_rate=1e30, validate_every=1)
    for path in tmp_path.glob("w.*"):
        assert path.suffix == ".csv" or all(value.isfinite().all() for value in load_file(path).values())


@pytest.mark.slow
def test_changed_data_does_not_go_on(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "copy")
    settings = {"stages": ((16, 0),), "epochs": 2, "batch_size": 10}
    assert (
        train(TrainingConfig("hdnet-nano", data=str(copy), validate_every=4, **settings), tmp_path / "w.safetensors", 0)
        is None
    )
    listing = copy / "IHD_train.txt"
    listing.write_text("\n".join(listing.read_text().split()[:-30]))
    with pytest.raises(ValueError, match="its data changed"):
        run(copy, tmp_path / "w.safetensors", **settings)


@pytest.mark.slow
def test_foreign_weights_are_not_overwritten(table, tmp_path):
    output = tmp_path / "w.safetensors"
    run(table, output, seed=5)
    output.with_suffix(".checkpoint").unlink()
    before = output.read_bytes()
    with pytest.raises(ValueError, match="exists and has no checkpoint to go on from"):
        run(table, output)
    assert output.read_bytes() == before


@pytest.mark.slow
def test_another_config_does_not_go_on(table, tmp_path):
    output = tmp_path / "w.safetensors"
    run(table, output)
    files = {path: path.read_bytes() for path in tmp_path.glob("w.*")}
    with pytest.raises(ValueError, match=r"w.checkpoint: this run had another learning_rate, seed: give the same"):
        run(table, output, learning_rate=1e-4, seed=7)
    output.with_suffix(".checkpoint").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="the checkpoint cannot be read"):
        run(table, output)
    output.with_suffix(".checkpoint").write_bytes(files[output.with_suffix(".checkpoint")])
    assert {path: path.read_bytes() for path in tmp_path.glob("w.*")} == files


@pytest.mark.slow
def test_a_loss_that_is_no_number_keeps_the_last_good_state(table, tmp_path, monkeypatch):
    calls = []

    def breaks(*arguments):
        calls.append(torch.is_grad_enabled())  # not in validations, of which the first is after four steps
        return foreground_mse(*arguments) * (math.nan if calls[-1] and sum(calls) == 6 else 1)

    monkeypatch.setattr(loop, "foreground_mse", breaks)
    output = tmp_path / "w.safetensors"
    with pytest.raises(FloatingPointError, match=r"The loss became nan in training and .* at step 8"):
        run(table, output)
    assert [row["step"] for row in log(output)] == ["4"]
    assert all(value.isfinite().all() for value in load_file(output).values())
    monkeypatch.undo()
    run(table, output)
    run(table, tmp_path / "whole.safetensors")
    assert same_run(tmp_path / "whole.safetensors", output)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["safetensors", "csv", "checkpoint"])
def test_a_full_disk_keeps_the_last_good_state(table, tmp_path, monkeypatch, file):
    output = tmp_path / "w.safetensors"
    if file != "safetensors":  # the weights are written when they are better, which the first ones always are
        settings = TrainingConfig(model="hdnet-nano", data=str(table), batch_size=4, **LONG)
        assert train(settings, output, minutes=0) is None
    real = checkpoint.atomic_write

    def full(path):
        if path.suffix == f".{file}":
            raise OSError(28, "No space left on device")
        return real(path)

    monkeypatch.setattr(checkpoint, "atomic_write", full)
    with pytest.raises(ValueError, match=r"step \d+ cannot be written, the state before it is kept: .*No space left"):
        run(table, output, **LONG)
    monkeypatch.undo()
    run(table, output, **LONG)
    run(table, tmp_path / "whole.safetensors", **LONG)
    assert same_run(tmp_path / "whole.safetensors", output)


@pytest.mark.slow
def test_two_processes_train_as_one(table, tmp_path):
    """The same global batch, shared; float32, so that only the order of sums differs."""
    options = ["--model", "hdnet-nano", "--stages", "16:64", "--batch-size", "8", "--precision", "fp32"]
    options += ["--validate-every", "4", "--device", "cpu"]
    assert main(["train", str(table), "-o", str(tmp_path / "one.safetensors"), *options]) == 0
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--num_cpu_threads_per_process", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launch, "-m", "hdnet_lib.cli", "train", str(table), "-o", str(tmp_path / "two.safetensors"), *options]
    subprocess.run(command, capture_output=True, check=True, timeout=300, cwd=REPOSITORY)
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
    for row, other in zip(log(tmp_path / "one.safetensors"), log(tmp_path / "two.safetensors"), strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)


def test_a_data_set_trains_too(small, tmp_path):
    model = run(small, tmp_path / "w.safetensors", overrides={"k": 3})
    assert model.local_dynamic.k == 3
    assert [row["step"] for row in log(tmp_path / "w.safetensors")] == ["4", "8"]


@pytest.mark.slow
def test_epochs_count_the_data(small, tmp_path):
    run(small, tmp_path / "w.safetensors", stages=((16, 0),), epochs=2, batch_size=10, validate_every=1000)
    count = len(TripletDataset(small, "train", 16))
    assert [row["step"] for row in log(tmp_path / "w.safetensors")] == [str(2 * count // 10)]


def test_the_paper_preset_is_the_papers_recipe():
    paper = PRESETS["paper"]
    assert (paper.model, paper.stages[-1][0], paper.epochs, paper.batch_size) == ("hdnet", 256, 120, 12)
    assert (paper.learning_rate, paper.ema_decay, paper.precision) == (1e-3, 0, "fp32")
    factors = [learning_rate_factor(epoch / 120, paper.schedule) for epoch in (0, 99.9, 100, 109.9, 110, 119)]
    assert factors == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_bad_pools_and_options_get_one_sentence(table, tmp_path, capsys):
    (tmp_path / "wrong.csv").write_text("photo\nx.png\n")
    (tmp_path / "gone.csv").write_text("image,masks\n" + "".join(f"{n}.png,{n}.png\n" for n in range(30)))
    rows = table.read_text().replace("mask_", "full_")
    (tmp_path / "full.csv").write_text(rows)
    for path in list(tmp_path.glob("mask_*")):
        Image.new("L", (60, 50), 255).save(tmp_path / path.name.replace("mask_", "full_"))
    (tmp_path / "damaged.csv").write_text(table.read_text().replace("mask_", "bad_"))
    for path in list(tmp_path.glob("mask_*")):
        (tmp_path / path.name.replace("mask_", "bad_")).write_bytes(path.read_bytes()[:60])
    (tmp_path / "short.csv").write_text("\n".join(table.read_text().split("\n")[:2]))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    out = ["-o", str(tmp_path / "w.safetensors")]
    cases = {
        "there is no such file": ["none.csv", *out],
        "needs the columns": [str(tmp_path / "wrong.csv"), *out],
        "does not exist": [str(tmp_path / "gone.csv"), *out],
        "the folder": [str(table), "-o", str(tmp_path / "none" / "w.safetensors")],
        "--stages must look like": [str(table), *out, "--stages", "big"],
        "must be multiples of 16": [str(table), *out, "--stages", "64:16,40:16"],
        "needs at least one batch": [str(table), *out, "--stages", "16:8"],
        "at least one photo": [str(table), *out, "--batch-size", "0"],
        "covers between": [str(tmp_path / "full.csv"), *out],
        "is damaged": [str(tmp_path / "damaged.csv"), *out],
        "at least two photos": [str(tmp_path / "short.csv"), *out],
        "would overwrite": [str(table), "-o", str(table.with_suffix(".safetensors"))],
        "ends with .safetensors": [str(table), "-o", str(tmp_path / "w.csv")],
        "device must be auto or cpu or cuda or mps": [str(table), *out, "--device", "cuda:1"],
        "schedule must be cosine or steps": [str(table), *out, "--schedule", "wobbly"],
        "a share from 0 to 1": [str(table), *out, "--mask-jitter", "50"],
        "learning_rate above 0": [str(table), *out, "--learning-rate", "0"],
        "no list for the train split": [str(tmp_path), *out],
        "no model called": [str(table), *out, "--model", "unet"],
    }
    for sentence, arguments in cases.items():
        assert main(["train", *arguments]) == 2
        error = next(line for line in capsys.readouterr().err.split("\n") if line.startswith("hdnet: "))
        assert sentence in error
    assert not list(tmp_path.glob("w.*"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_command_line(table, tmp_path, capsys):
    arguments = ["train", str(table), "-o", str(tmp_path / "w.safetensors"), "--model", "hdnet-nano"]
    for _ in range(2):  # the second time there is nothing left to do, and it says so
        assert main([*arguments, "--stages", "16:8,32:4", "--batch-size", "4"]) == 0
        assert "w.safetensors: all 3 steps are made; the weights are those of step 3." in capsys.readouterr().out
    assert (tmp_path / "w.safetensors").is_file()


def test_another_system_trains_by_the_common_loss_and_comes_back(table, tmp_path):
    output = tmp_path / "w.safetensors"
    trained = run(table, output, model="issam", overrides={"width": 4})
    assert not trained.training
    # Validations every four of eight steps, of a copy in evaluation mode: they are no batches to be normalised by.
    assert trained.get_buffer("encoder.2.0.norm.num_batches_tracked").item() in (4, 8)
    again = load_weights(output)
    one, two = trained.state_dict(), again.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("model", "overrides"), [("issam", {"width": 4}), ("hdnet-nano", {})])
def test_a_system_trains_by_its_own_loss(table, tmp_path, model, overrides):
    """HDNet's own is the common one."""
    output, batch = tmp_path / "w.safetensors", PhotoDataset(table, "train", 16).composites(range(4))
    settings = {"model": model, "overrides": overrides, "initialization": "normal", "precision": "fp32"}
    run(table, output, **settings, loss="own", stages=((16, 4),), validate_every=1)
    torch.manual_seed(0)
    network = create_model(model, **overrides)
    if model == "issam":
        expected = network.own_loss(batch.composite, batch.mask, batch.real)
    else:
        result = paste(network(batch.composite, batch.mask), batch.composite, batch.mask)
        expected = foreground_mse(result, batch.real, batch.mask)
    assert read_log(output)[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.slow
def test_a_discriminator_learns_beside_the_network_and_is_resumed(small, tmp_path, monkeypatch):
    monkeypatch.setattr("hdnet_lib.training.adversary.RegionDiscriminator", partial(RegionDiscriminator, 2))
    monkeypatch.setattr(loop, "validate", lambda model, batch: (1.0, 20.0))
    monkeypatch.setattr(loop, "gains", lambda *_: {"exact": 0.0})
    settings = {"model": "rainnet", "overrides": {"width": 2}, "stages": ((256, 4),), "batch_size": 1}
    settings |= {"validate_every": 2, "initialization": "normal", "loss": "own"}
    checkpoints = {}
    for name, stops in (("own", (math.inf,)), ("again", (0, math.inf))):
        for minutes in stops:
            run(small, tmp_path / f"{name}.safetensors", minutes, **settings)
        checkpoints[name] = load_file(tmp_path / f"{name}.checkpoint")
    one, two = checkpoints["own"], checkpoints["again"]
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert all(value.isfinite().all() for value in one.values())
    assert any(value.any() for name, value in one.items() if name.startswith("adversary.first."))


def test_a_discriminator_has_the_networks_schedule_and_one_process(small, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("hdnet_lib.training.adversary.RegionDiscriminator", partial(RegionDiscriminator, 2))
    monkeypatch.setattr(loop, "Adversary", lambda *inputs: made.append(Adversary(*inputs)) or made[0])
    monkeypatch.setattr(loop, "validate", lambda model, batch: (1.0, 20.0))
    monkeypatch.setattr(loop, "gains", lambda *_: {"exact": 0.0})
    settings = {"model": "dovenet", "overrides": {"width": 2}, "stages": ((256, 2),), "batch_size": 1, "loss": "own"}
    run(small, tmp_path / "w.safetensors", **settings)
    assert made[0].optimizer.param_groups[0]["lr"] == pytest.approx(3e-3 * learning_rate_factor(0.5))
    monkeypatch.setattr(loop.Accelerator, "num_processes", 2)
    with pytest.raises(ValueError, match="with --loss own dovenet learns beside a discriminator, which works in one"):
        run(small, tmp_path / "two.safetensors", **(settings | {"batch_size": 2}))


def test_a_loss_is_common_or_own(table, tmp_path):
    with pytest.raises(ValueError, match="loss must be common or own, not 'mine'"):
        run(table, tmp_path / "w.safetensors", loss="mine")


def test_a_side_that_the_network_cannot_take_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"dovenet takes sides that are multiples of 256 and at least 256, not 128"):
        run(tmp_path / "no.csv", tmp_path / "w.safetensors", model="dovenet", stages=((256, 4), (128, 4)))
