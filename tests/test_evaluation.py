import re
import shutil

import numpy as np
import pandas as pd
import pytest
import score_weights
import torch
from conftest import REPOSITORY
from PIL import Image

from hdnet_lib.data import list_triplets
from hdnet_lib.data.pool import PhotoPool
from hdnet_lib.evaluation import (
    BASELINES,
    Example,
    compare_entries,
    make_validation,
    mean_interval,
    network,
    permutation_test,
    read_triplets,
    score_methods,
    summarise,
)
from hdnet_lib.images import to_tensor
from hdnet_lib.metrics import score
from hdnet_lib.registry import create_model, load_pretrained


def example(name, photo, shift):
    rng = np.random.default_rng(0)
    real = rng.integers(60, 180, (16, 16, 3)).astype(np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    return Example(name, photo, np.where(mask[..., None], real + np.uint8(shift), real), mask, real)


def test_scores_are_those_of_the_metrics():
    examples = [example("one", "a", 10), example("two", "b", 20)]
    table = score_methods(examples, {"as it is": lambda c, m: c, "real": lambda c, m: c - m * 10 / 255})
    expected = score(examples[1].composite, examples[1].real, examples[1].mask)
    row = table[(table.name == "two") & (table.method == "as it is")].iloc[0]
    assert (row.psnr, row.fmse, row.ratio) == (expected.psnr, expected.fmse, 0.25)
    assert len(table) == 4


def test_summary_counts_gains_and_losses():
    rows = [("one", "a", 30, 33), ("two", "a", 30, 31), ("three", "b", 40, 38)]
    table = pd.concat(
        pd.DataFrame({"name": name, "photo": photo, "method": ["as it is", "ours"], "psnr": [before, after],
                      "mse": 1, "fmse": 1, "ssim": 1}) for name, photo, before, after in rows)  # fmt: skip
    ours = summarise(table, "as it is").loc["ours"]
    assert (ours.composites, ours.photos, ours.worse) == (3, 2, 1)
    assert ours.gain == pytest.approx(2 / 3)
    # Only two photos: the mean gain of one is 2, of the other -2; resampling can give nothing beyond.
    assert (ours.gain_low, ours.gain_high) == (pytest.approx(-2), pytest.approx(2))


def test_intervals_resample_photos_and_cover_the_truth():
    """Of 95 % intervals about 95 % cover the mean; resampling composites one by one would cover far fewer."""
    rng = np.random.default_rng(0)
    covered, naive = 0, 0
    photos, each = pd.Series(np.repeat(np.arange(100), 5)), pd.Series(np.arange(500))
    for _ in range(200):
        values = pd.Series(np.repeat(rng.normal(size=100), 5) + 0.3 * rng.normal(size=500))
        _, low, high = mean_interval(values, photos, draws=500)
        covered += low < 0 < high
        _, low, high = mean_interval(values, each, draws=500)
        naive += low < 0 < high
    assert covered >= 175
    assert naive < 150


def test_an_interval_may_have_photos_of_different_weight():
    mean, low, high = mean_interval(pd.Series([1.0, 1.0, 1.0, 5.0]), pd.Series(list("aaab")))
    assert mean == 2
    assert (low, high) == (1, 5)


def test_triplets_know_their_photo(mini):
    examples = list(read_triplets(mini, "test", 32))
    triplets = list_triplets(mini, "test")
    assert [e.photo for e in examples] == [t.photo for t in triplets]
    assert len({e.photo for e in examples}) == 3
    assert examples[0].composite.shape == (32, 32, 3)


def test_validation_composites_are_of_held_out_photos(table):
    examples = list(make_validation(table, 32, rounds=2))
    assert {e.photo for e in examples} == {p.name for p, _ in PhotoPool(table, "validation", 32)._pairs}
    assert not {e.photo for e in examples} & {p.name for p, _ in PhotoPool(table, "train", 32)._pairs}
    chosen_by = PhotoPool(table, "validation", 32).composites([0])
    assert not np.allclose(examples[0].composite, (chosen_by.composite[0].permute(1, 2, 0) + 1) * 127.5, atol=1)
    assert all((table.parent / e.photo).is_file() for e in examples)
    for one, other in zip(examples, make_validation(table, 32, rounds=2), strict=True):
        assert np.array_equal(one.composite, other.composite)
        assert not np.array_equal(one.composite, one.real)
        assert np.array_equal(one.composite[~one.mask], one.real[~one.mask])


def test_a_permutation_test_is_right_as_often_as_it_says():
    rng = np.random.default_rng(0)
    photos = pd.Series(np.repeat(np.arange(30), 4))
    p = [permutation_test(pd.Series(np.repeat(rng.normal(size=30), 4)), photos, draws=400) for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09
    assert permutation_test(pd.Series(np.repeat(rng.normal(1, 0.3, size=30), 4)), photos, draws=400) == 1 / 401
    # Three photos that all gain: of eight ways to choose signs, two are as extreme.
    assert permutation_test(pd.Series([1.0, 1.0, 1.0]), pd.Series([0, 1, 2])) == pytest.approx(0.25, abs=0.02)


def test_entries_are_compared_over_their_seeds_by_photo():
    rows = [
        ("one", "a", [10, 12], [9, 10]), ("two", "a", [20, 22], [18, 18]), ("three", "b", [30, 30], [31, 31])
    ]  # fmt: skip
    table = pd.DataFrame([
        {"name": name, "photo": photo, "method": f"{entry}-s{seed}", "fmse": value}
        for name, photo, *values in rows
        for entry, seeds in zip(["w8-b-s", "w8-a"], values, strict=True)
        for seed, value in enumerate(seeds)
    ])  # fmt: skip
    result = compare_entries(table, "w8-b-s", "fmse")
    assert list(result.index) == ["w8-b-s", "w8-a"]
    assert result.loc["w8-a", "mean"] == pytest.approx(117 / 6)
    assert result.loc["w8-a", "spread"] == pytest.approx(np.std([58 / 3, 59 / 3], ddof=1))
    assert result.loc["w8-a", ["difference", "low", "high"]].tolist() == pytest.approx([(-1.5 - 3 + 1) / 3, -2.25, 1])
    assert result.loc["w8-b-s", ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="'w8' must be an entry"):
        compare_entries(table, "w8", "fmse")


@pytest.mark.parametrize("method", [*BASELINES.values(), network(create_model("hdnet-nano").eval())])
def test_baselines_and_networks_change_the_foreground_alone(method):
    given = example("one", "a", 30)
    composite, mask = to_tensor(given.composite), to_tensor(given.mask)
    with torch.inference_mode():
        output = method(composite, mask)
    changed = (output - composite).abs().amax(dim=(0, 1)).numpy() > 1e-6
    assert not changed[~given.mask].any()
    assert changed.any() == (method is not BASELINES["composite as it is"])


def test_the_script_prints_and_writes_every_score(mini, table, tmp_path, monkeypatch, capsys):
    arguments = [str(mini), str(table), "--size", "32", "--table", str(tmp_path / "scores.csv")]
    monkeypatch.setattr("sys.argv", ["score_weights.py", *arguments])
    assert score_weights.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("| hdnet-lite |") == 2
    assert "100 composites of 3 photos" in printed
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores.method) == {*BASELINES, "hdnet-lite"}
    assert set(scores.data) == {str(mini), str(table)}


def test_groups_count_every_composite_once():
    table = pd.DataFrame({
        "name": ["one", "two", "three"] * 2, "method": ["before"] * 3 + ["after"] * 3, "psnr": [30, 31, 32, 33, 30, 36],
        "fmse": [2000, 100, 300, 1, 1, 1], "ratio": [0.005, 0.05, 0.5] * 2})  # fmt: skip
    result = score_weights.groups(table, "after", "before")
    assert result.composites.tolist() == [2, 1, 1, 1, 1]
    assert result.mean_gain.tolist() == [1.5, 3, 3, -1, 4]
    assert result.made_worse.tolist() == [1, 0, 0, 1, 0]


def test_a_result_that_is_the_photo_counts_as_100_db():
    examples = [example("one", "a", 10), example("two", "b", 20)]
    table = score_methods(examples, {"as it is": lambda c, m: c, "darker": lambda c, m: c * 0.9})
    table.loc[table.name == "two", "psnr"] = np.inf
    result = summarise(table, "as it is")
    assert np.isfinite(result).all().all()
    assert result.loc["as it is", "psnr"] > 50


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "hdnet-lite", "x/hdnet-lite.safetensors"], "two methods are called hdnet-lite: rename a file."),
        (["--size", "36"], "--size must be a multiple of 8, not 36."),
        (["--table", "nowhere/scores.csv"], "--table: the folder nowhere does not exist."),
        (["--reference", "x"], "--reference must be one of composite as it is, Reinhard"),
    ],
)
def test_bad_options_are_refused_before_anything_is_scored(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["score_weights.py", *arguments])
    with pytest.raises(SystemExit):
        score_weights.main()
    assert sentence in capsys.readouterr().err


def test_full_masks_are_refused_and_doubles_scored_once(small, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    name = list_triplets(copy, "test")[0]
    (copy / "IHD_test.txt").write_text(f"{name.line}\n{name.line}\n")
    assert len(list(read_triplets(copy, "test", 64))) == 1
    Image.new("L", (64, 64), 255).save(name.mask)
    with pytest.raises(ValueError, match=f"{name.name}: its mask is full"):
        list(read_triplets(copy, "test", 64))


def test_the_model_card_quotes_what_the_command_prints():
    """The row of the composite to the last digit; that of the network as far as processors agree."""
    card = (REPOSITORY / "hdnet_lib" / "weights" / "MODEL_CARD.md").read_text()
    methods = {"composite as it is": BASELINES["composite as it is"], "hdnet-lite": network(load_pretrained())}
    summary = summarise(score_methods(read_triplets("mini"), methods), "composite as it is")
    *_, composite, ours = score_weights.markdown(summary).splitlines()
    assert composite in card
    first = next(line for line in card.splitlines() if line.startswith("| hdnet-lite |"))
    quoted, computed = ([float(number) for number in re.findall(r"[-+]?\d+\.\d+", row)] for row in (first, ours))
    assert computed[:6] == pytest.approx(quoted[:6], abs=0.03)  # PSNR and gain with their intervals
    assert computed[6:8] == pytest.approx(quoted[6:8], rel=0.01)  # MSE and fMSE
