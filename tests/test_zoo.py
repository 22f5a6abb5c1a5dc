"""The queue of the zoo, the controls that it trains, and the packed pool."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pack_pool
import pytest
import ship_weights
import torch
import train_zoo
from conftest import REPOSITORY, random_inputs
from safetensors import safe_open

from hdnet_lib import create_model, list_pretrained, load_pretrained, registry
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.evaluation.chunks import read_scores
from hdnet_lib.evaluation.scoring import evaluate
from hdnet_lib.evaluation.summary import choose_protocol, compare
from hdnet_lib.model.variants import RandomReference, ZeroReference
from hdnet_lib.peers.systems import PEERS
from hdnet_lib.registry import load_weights
from hdnet_lib.training.checkpoint import finished, read_log
from hdnet_lib.training.config import TrainingConfig, parse_stages
from hdnet_lib.training.loop import train

ENTRIES = list(csv.DictReader(train_zoo.ZOO.open(newline="")))


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_every_entry_is_a_model_that_trains(entry):
    overrides, stages = json.loads(entry["overrides"]), parse_stages(entry["stages"])
    assert stages
    if entry["model"] in PEERS:  # test_peers.py trains them at a small size
        assert all(create_model(entry["model"], **overrides).takes(side) for side, _ in stages)
        return
    model = create_model(entry["model"], **(overrides | {"width": 2}))
    composite, mask = random_inputs(batch=2)
    model(composite, mask).square().mean().backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []


def test_the_queue_pairs_seeds_and_names_every_run_once():
    queue = train_zoo.runs([1, 2, 3, 4, 5], "pool.csv", 0.5, "cpu")
    names = [name for name, _ in queue]
    assert len(set(names)) == len(names) == sum(len(entry["seeds"].split()) for entry in ENTRIES)
    assert names[:2] == ["hdnet-s0", "hdnet-lite-s0"]
    seeds = [config.seed for name, config in queue if name.startswith("w8-") and "k" not in name.split("-")[1]]
    pilots = dict(train_zoo.runs([5], "pool.csv", 0.1, "cpu", [3e-4, 1e-3]))
    pilot = pilots["equal-hdnet-normal-lr0.0003-s0"]
    assert (pilot.learning_rate, pilot.stages, pilot.initialization) == (3e-4, ((128, 1024),), "normal")
    row_two = [config.seed for _, config in train_zoo.runs([2], "pool.csv", 1, "cpu")]
    assert row_two == sorted(row_two)
    assert set(seeds) == {0, 1, 2}
    config = dict(queue)["w8-hdnet-s1"]
    assert (config.stages, config.overrides, config.seed) == (((128, 32000),), {"width": 8}, 1)


@pytest.mark.slow
def test_the_queue_is_stopped_and_goes_on(table, tmp_path, monkeypatch, capsys):
    zoo = tmp_path / "zoo.csv"
    header = ",".join(ENTRIES[0])
    lines = [
        f'1,{name},hdnet-nano,"{{""k"": {k}}}",budget,identity,common,mix,16:800,8,0.003,0 1,why'
        for name, k in (("one", 1), ("three", 3))
    ]
    zoo.write_text("\n".join([header, *lines]))
    monkeypatch.setattr(train_zoo, "ZOO", zoo)

    def queue(*options):
        arguments = [str(table), str(tmp_path / "out"), "--device", "cpu", "--scale", "0.02", *options]
        monkeypatch.setattr("sys.argv", ["train_zoo.py", *arguments])
        return train_zoo.main(), capsys.readouterr().out

    status, output = queue("--minutes", "0")
    assert (status, output.count("open")) == (0, 4)
    status, output = queue("--parallel", "2")
    assert (status, output.count("done")) == (0, 4)
    outputs = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [path.stem for path in outputs] == ["one-s0", "one-s1", "three-s0", "three-s1"]
    assert all(finished(path) and read_log(path)[-1]["step"] == 2 for path in outputs)
    assert load_weights(outputs[-1]).local_dynamic.k == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert queue()[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert queue("--export", str(tmp_path / "export"))[0] == 0
    exported = sorted((tmp_path / "export").glob("*.safetensors"))
    assert [path.name for path in exported] == [path.name for path in outputs]
    assert all(path.with_suffix(".csv").is_file() for path in exported)
    assert load_weights(exported[-1]).local_dynamic.k == 3
    assert ship_weights.pack(exported[0], tmp_path / "again.safetensors")[0]["model"] == "hdnet-nano"
    outputs[0].with_suffix(".checkpoint").unlink()
    outputs[0].write_bytes(outputs[1].read_bytes())
    status, _ = queue()
    assert status == 1  # the weights of another run are not overwritten


# --- controls


def test_a_reference_of_zeros_ignores_the_background():
    torch.manual_seed(0)
    module = ZeroReference(4)
    feature, mask = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 2:5] = 1
    other = torch.where(mask == 1, feature, torch.randn(1, 4, 8, 8))
    inside = (mask == 1).expand_as(feature)
    assert torch.equal(module(feature, mask)[inside], module(other, mask)[inside])
    assert torch.equal(module(feature, mask)[~inside], feature[~inside])


def test_random_references_are_background_and_the_same_every_time():
    feature, mask = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 2:5] = 1
    module = RandomReference(4, k=3)
    matches = module.match(feature, mask)
    assert torch.equal(matches.indices, module.match(torch.randn(1, 4, 8, 8), mask).indices)
    assert matches.background[0][matches.indices[0]].all()
    assert len(matches.indices.unique()) > 20


def test_constant_kernels_do_not_depend_on_the_image():
    model = create_model("hdnet-nano", decoder_module="mgd-constant").eval()
    composite, mask = random_inputs(batch=2)
    for kernels in model.inspect(composite, mask).kernels.values():
        for kernel in kernels:
            assert torch.equal(kernel[0], kernel[1])


def test_one_kernel_serves_both_regions_and_is_a_convolution():
    torch.manual_seed(0)
    model = create_model("hdnet-nano", decoder_module="mgd-one").eval()
    composite, mask = random_inputs(batch=2)
    inside = model.inspect(composite, mask)
    for stage, (foreground, background) in inside.kernels.items():
        assert torch.equal(foreground, background)
        feature = inside.features[f"decoder{stage}"]
        expected = torch.einsum("oi,bihw->bohw", foreground[0], feature)
        torch.testing.assert_close(inside.features[f"dynamic{stage}"], expected)
    two = create_model("hdnet-nano", decoder_module="mgd-constant")
    numbers = [sum(p.numel() for p in network.dynamics.parameters()) for network in (two, model)]
    assert numbers[0] == 2 * numbers[1] > 0


def test_without_rain_there_is_none():
    names = [name for name, _ in create_model("hdnet-nano", use_rain=False).named_parameters()]
    assert names
    assert not any("rain" in name for name in names)


# --- packed pool


def test_a_packed_pool_is_the_same_pool(table, tmp_path):
    parts = pack_pool.pack(table, tmp_path / "parts", 34, 40_000)
    assert len(parts) > 1
    assert all(part.stat().st_size <= 40_000 for part in parts)
    for part in parts:
        with tarfile.open(part) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
    for name in ("train", "validation"):
        pools = [PhotoDataset(path, name, 32) for path in (table, tmp_path / "unpacked" / "pool.csv")]
        one, two = ([photo.name for photo, _ in pool._pairs] for pool in pools)
        assert one == two
        photos = [pool.resident[0].float() for pool in pools]
        assert (photos[0] - photos[1]).abs().mean() < 8  # JPEG of noise
        drawn = slice(1, None) if name == "train" else slice(None)  # the first has a mask made from its pixels
        masks = [pool.resident[1][drawn].numpy().astype(int) for pool in pools]
        assert np.abs(masks[0] - masks[1]).mean() < 2


def test_a_pool_that_lies_elsewhere_is_not_packed(table, tmp_path):
    (tmp_path / "deep").mkdir()
    name = next(tmp_path.glob("photo*.png")).name
    (tmp_path / "deep" / "pool.csv").write_text(f"image,masks\n../{name},\n")
    with pytest.raises(ValueError, match="lies outside the table's folder"):
        pack_pool.pack(tmp_path / "deep" / "pool.csv", tmp_path / "parts", 34, 40_000)


# --- shipping


@pytest.mark.slow
def test_shipped_weights_load_and_say_what_they_are(table, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "index.json").write_text("{}")
    monkeypatch.setattr(ship_weights, "WEIGHTS", folder)
    monkeypatch.setattr(registry, "WEIGHTS", folder)
    config = TrainingConfig(
        model="hdnet-nano", overrides={"k": 3}, data=str(table), stages=((16, 16),), batch_size=8, device="cpu"
    )
    outputs = [tmp_path / f"n-k3-s{seed}.safetensors" for seed in (0, 1)]
    trained, _ = (train(replace(config, seed=seed), output) for seed, output in enumerate(outputs))
    monkeypatch.setattr("sys.argv", ["ship_weights.py", "--data", "12 photos", *map(str, outputs)])
    assert ship_weights.main() == 0
    assert "n-k3: 12 photos; 16 composites at 16 px, batch 8, seed 0, 0 minutes" in capsys.readouterr().out
    shipped = load_pretrained("n-k3")
    assert shipped.local_dynamic.k == 3
    for one, other in zip(trained.parameters(), shipped.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["n-k3-s0.csv", "n-k3-s1.csv"]
    with safe_open(folder / "n-k3.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["data"] == "pool.csv"


@pytest.mark.slow
def test_only_finished_runs_are_shipped_and_nothing_changes_before(table, tmp_path, monkeypatch, capsys):
    config = TrainingConfig(
        model="hdnet-nano", data=str(table), stages=((16, 32),), batch_size=8, validate_every=2, device="cpu"
    )
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "index.json").write_text("{}")
    for module in (ship_weights, registry):
        monkeypatch.setattr(module, "WEIGHTS", folder)
    done, stopped, lost = (tmp_path / f"{name}.safetensors" for name in ("a-star", "w-s1", "lost"))
    train(config, done)
    train(config, lost)
    lost.with_suffix(".csv").unlink()
    train(config, stopped, minutes=0)

    def ship(*runs):
        monkeypatch.setattr("sys.argv", ["ship_weights.py", "--data", "photos", *map(str, runs)])
        return ship_weights.main()

    for bad, sentence in (
        (stopped, "w-s1.safetensors: this run has made 2 of its 4 steps"),
        (lost, "lost.csv: the log of the run cannot be read"),
        (Path(ship_weights.__file__), "the weights cannot be read"),
    ):
        with pytest.raises(SystemExit):
            ship(done, bad)
        assert sentence in capsys.readouterr().err
        assert [path.name for path in folder.iterdir()] == ["index.json"]
    with pytest.raises(ValueError, match="would overwrite the run itself"):
        ship_weights.pack(done, done)
    assert ship(done) == 0
    assert list(registry.list_pretrained()) == ["a-star"]


def test_what_comes_with_the_package_is_small_and_has_logs():
    files = [path for path in registry.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.parent.name != "zoo") < 28e6
    logged = {path.stem for path in files if path.suffix == ".csv"}
    assert all({name, f"{name}-s0"} & logged for name in list_pretrained())
    named = {entry.file for entry in list_pretrained().values()}
    assert named == {path.relative_to(registry.WEIGHTS).as_posix() for path in files if path.suffix == ".safetensors"}


@pytest.mark.slow
def test_a_session_waits_for_all_parts_and_brings_back_what_is_done(table, tmp_path):
    parts = pack_pool.pack(table, tmp_path / "packed", 34, 40_000)
    (tmp_path / "parts").mkdir()
    folders = [str(tmp_path / name) for name in ("parts", "work", "out")]

    def session(*options):
        command = ["bash", "data_scripts/zoo_session.sh", *folders, *options]
        here = {"env": os.environ | {"PYTHON": sys.executable}, "cwd": REPOSITORY}
        return subprocess.run(command, **here, capture_output=True, text=True, check=False)

    shutil.move(parts[0], tmp_path / "parts")
    assert "bring the other parts" in session().stderr
    for part in parts[1:]:
        shutil.move(part, tmp_path / "parts")
    (tmp_path / "out" / "zoo.tar.07").touch()  # of an earlier session
    result = session("--rows", "2", "--minutes", "0")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("open") == sum(len(entry["seeds"].split()) for entry in ENTRIES if entry["row"] == "2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["zoo.tar.00"]
    # A run that is done: the pool's path and all settings are those of the queue.
    config = dict(train_zoo.runs([2], str(tmp_path / "work" / "pool" / "pool.csv"), 1e-9, "cpu"))["w8-base-s2"]
    train(config, tmp_path / "work" / "zoo" / "w8-base-s2.safetensors")
    assert session("--rows", "2", "--minutes", "0").returncode == 0
    with tarfile.open(tmp_path / "out" / "zoo.tar.00") as tar:
        assert {"./w8-base-s2.safetensors", "./w8-base-s2.csv"} <= set(tar.getnames())
    damaged = tmp_path / "parts" / parts[0].name
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert session("--rows", "2", "--minutes", "0").returncode != 0  # a damaged part trains nothing


def test_scores_of_all_runs_are_shipped_with_what_they_were_made_from(small, tmp_path, monkeypatch, capsys):
    made = evaluate(small, ["reinhard"], tmp_path / "scores.csv", ["hdnet"], size=64)
    monkeypatch.setattr(ship_weights, "ZOO_SCORES", tmp_path / "zoo" / "zoo_scores.csv.gz")
    (tmp_path / "zoo").mkdir()
    written = set()
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["ship_weights.py", "--scores", str(tmp_path / "scores.csv")])
        assert ship_weights.main() == 0
        written.add((tmp_path / "zoo" / "zoo_scores.csv.gz").read_bytes())
    assert len(written) == 1
    assert "2 methods, 100 composites of 3 photos" in capsys.readouterr().out
    shipped = read_scores(tmp_path / "zoo" / "zoo_scores.csv.gz")
    assert np.allclose(shipped.psnr, made.psnr, rtol=1e-5)
    assert json.loads((tmp_path / "zoo" / "zoo_scores.json").read_text())["size"] == 64
    monkeypatch.setattr("sys.argv", ["ship_weights.py", "some.safetensors"])
    with pytest.raises(SystemExit):
        ship_weights.main()
    assert "give runs with --data, or --scores, or both" in capsys.readouterr().err


def test_the_scores_that_come_with_the_package_are_those_of_the_zoo():
    """Of every entry of rows 2 to 4 all seeds, on the same composites."""
    scores = read_scores(registry.ZOO_SCORES)
    rows = [entry for entry in ENTRIES if entry["row"] in "234"]
    runs = {f"{entry['name']}-s{seed}" for entry in rows for seed in entry["seeds"].split()}
    assert set(scores.method) >= (runs - {f"w8-hdnet-paper-recipe-s{seed}" for seed in range(3)}) | {"composite"}
    assert scores.groupby("method").name.nunique().nunique() == 1
    made_from = json.loads((registry.WEIGHTS / "zoo_scores.json").read_text())
    assert made_from["composites"] == scores.name.nunique()
    logged = {path.stem for path in (registry.WEIGHTS / "logs").glob("w8-*.csv")}
    assert set(scores.method) - {"composite"} <= logged


@pytest.mark.slow
def test_the_model_card_quotes_the_shipped_scores():
    """Every number of the comparison: means, spreads, differences, intervals and p."""
    card = (REPOSITORY / "docs" / "weights.md").read_text()
    scores = choose_protocol(read_scores(registry.ZOO_SCORES), "hdnet")
    for metric, digits, first in (("fmse", 1, 3), ("psnr", 2, 6)):
        for entry, row in compare(scores, "w8-hdnet", metric).iterrows():
            (line,) = [line for line in card.splitlines() if line.startswith((f"| `{entry}` | ", f"| {entry} |  | "))]
            cells = " ".join(line.split("|")[first : first + 3])
            quoted = [float(number) for number in re.findall(r"[-+]?\d+\.\d+", cells)]
            expected = [row["mean"], row.spread] if row.seeds > 1 else [row["mean"]]
            expected += [row.difference, row.low, row.high, row.p] if entry != "w8-hdnet" else []
            assert len(quoted) == len(expected), line
            # p has two or more digits; all others have those of the metric.
            near = [0.501 * 10**-digits] * (len(quoted) - 1) + [0.0051 if entry != "w8-hdnet" else 0.501 * 10**-digits]
            assert all(abs(q - e) <= n for q, e, n in zip(quoted, expected, near, strict=True)), line
