import csv
import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from hdnet_lib import create_model
from hdnet_lib.cli import main
from hdnet_lib.training import TrainingConfig, learning_rate_factor, train


def run(table, output, **changes):
    torch.manual_seed(123)  # training must not depend on the state it finds
    settings = {"model": "hdnet-nano", "pool": str(table), "stages": ((16, 24), (32, 8)), "batch_size": 4}
    return train(TrainingConfig(**(settings | changes)), output)


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
    assert header["steps"] == "8"
    with (tmp_path / "one.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["8"]
    assert 0 < float(rows[0]["validation_psnr"]) < 60
    assert not list(tmp_path.glob("*.part"))


def test_training_reduces_the_loss(table, tmp_path):
    losses = []
    for samples in (8, 1600):
        run(table, tmp_path / "w.safetensors", stages=((16, samples),), batch_size=8, average_decay=0.9)
        with (tmp_path / "w.csv").open() as file:
            losses.append(float(list(csv.DictReader(file))[-1]["validation_psnr"]))
    assert losses[1] > losses[0] + 1


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


def test_schedule():
    assert learning_rate_factor(0.0) == 0
    assert learning_rate_factor(0.02) == 1
    assert learning_rate_factor(0.51) == pytest.approx(0.5)
    assert learning_rate_factor(1.0) == pytest.approx(0)


def test_nan_stops_and_writes_nothing(table, tmp_path):
    with pytest.raises(FloatingPointError, match="try a lower learning rate"):
        run(table, tmp_path / "w.safetensors", learning_rate=1e30)
    assert not (tmp_path / "w.safetensors").exists()


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
    (tmp_path / "short.csv").write_text("image,masks\nonly.png\n")
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
        "device 'quantum' cannot be used": [str(table), *out, "--device", "quantum"],
        "no model called": [str(table), *out, "--model", "unet"],
    }
    for sentence, arguments in cases.items():
        assert main(["train", *arguments]) == 2
        error = capsys.readouterr().err.split("\n")[-2]
        assert sentence in error
        assert error.startswith("hdnet: ")
    assert not list(tmp_path.glob("w.*"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_command_line(table, tmp_path):
    arguments = ["train", str(table), "-o", str(tmp_path / "w.safetensors"), "--model", "hdnet-nano"]
    assert main([*arguments, "--stages", "16:8,32:4", "--batch-size", "4"]) == 0
    assert (tmp_path / "w.safetensors").is_file()
