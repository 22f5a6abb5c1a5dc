"""Evaluation: what is scored, by which methods, and the table on disk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from PIL import Image

from hdnet_lib import cli
from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.data import list_triplets
from hdnet_lib.data.iharmony4 import Triplets
from hdnet_lib.data.samples import Sample
from hdnet_lib.evaluation import chunks, scoring
from hdnet_lib.evaluation.chunks import read_scores
from hdnet_lib.evaluation.examples import Validation
from hdnet_lib.evaluation.methods import BASELINES, COMPOSITE, ModelMethod, load_method, load_methods
from hdnet_lib.evaluation.metrics import PROTOCOLS, Protocol, score
from hdnet_lib.evaluation.scoring import evaluate, score_methods
from hdnet_lib.evaluation.summary import choose_protocol, summarize
from hdnet_lib.registry import WEIGHTS, create_model, load_pretrained


def example(name, photo, shift):
    rng = np.random.default_rng(0)
    real = rng.integers(60, 180, (16, 16, 3)).astype(np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    return Sample(np.where(mask[..., None], real + np.uint8(shift), real), mask, real, name, "x", photo)


def same(one, other):
    """Equal to the last bit, but for the times."""
    pd.testing.assert_frame_equal(
        one.drop(columns="seconds").reset_index(drop=True), other.drop(columns="seconds").reset_index(drop=True),
        check_exact=True,
    )  # fmt: skip


# --- scores


def test_scores_are_those_of_the_metrics():
    examples = [example("one", "a", 10), example("two", "b", 20)]
    table = score_methods(
        examples, {"as it is": BASELINES[COMPOSITE], "darker": lambda batch: [e.real // 2 for e in batch]}
    )
    assert len(table) == 2 * 2 * len(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        expected = score(examples[1].composite, examples[1].real, examples[1].mask, examples[1].composite, protocol)
        chosen = (table.name == "two") & (table.method == "as it is") & (table.protocol == name)
        row = table[chosen].iloc[0]
        assert tuple(row[list(expected._fields)]) == tuple(expected)
        assert (row.subset, row.photo, row.ratio) == ("x", "b", 0.25)


@pytest.mark.slow
def test_batches_score_as_single_composites_do(small):
    methods = {"hdnet-lite": ModelMethod(load_pretrained())}
    examples = Triplets(small, size=64)
    one, many = (score_methods(examples, methods, batch_size=size) for size in (1, 16))
    assert one.drop(columns=["mse", "fmse", "psnr", "ssim", "seconds"]).equals(many[one.columns[:6]])
    # Sums in another order: some value near an edge of rounding goes the other way, which of a tiny object shows most.
    difference = np.abs(one.psnr - many.psnr)
    assert difference.max() < 0.01
    assert difference.mean() < 1e-4


def test_protocols_of_ones_own_and_unknown_ones():
    examples = [example("one", "a", 10)]
    table = score_methods(examples, {"x": BASELINES[COMPOSITE]}, {"mine": Protocol(background="output")})
    assert table.protocol.tolist() == ["mine"]
    with pytest.raises(ValueError, match="no protocol called hdnte, only hdnet, idih"):
        score_methods(examples, {}, ["hdnte"])


def test_an_output_that_cannot_be_scored_names_method_and_composite():
    broken = {"broken": lambda batch: [np.full((16, 16, 3), np.nan) for _ in batch]}
    with pytest.raises(ValueError, match="broken, one: output holds values that are not finite"):
        score_methods([example("one", "a", 10)], broken)


# --- what is scored


def test_triplets_know_their_photo_and_subset(mini):
    examples = list(Triplets(mini, "test", 32))
    triplets = list_triplets(mini, "test")
    assert [(e.name, e.photo, e.subset) for e in examples] == [(t.name, t.photo, t.subset) for t in triplets]
    assert len({e.photo for e in examples}) == 3
    assert examples[0].composite.shape == (32, 32, 3)
    assert examples[0].original == Image.open(triplets[0].composite).size


def test_a_limit_spreads_over_the_list(mini):
    names = [t.name for t in list_triplets(mini, "test")]
    assert Triplets(mini, limit=4).names == [names[index] for index in (0, 25, 50, 75)]
    assert Triplets(mini, limit=1000).names == Triplets(mini).names == names


def test_validation_composites_are_of_held_out_photos(table):
    examples = list(Validation(table, 32))
    assert {e.photo for e in examples} == {p.name for p, _ in PhotoDataset(table, "validation", 32)._pairs}
    assert not {e.photo for e in examples} & {p.name for p, _ in PhotoDataset(table, "train", 32)._pairs}
    chosen_by = PhotoDataset(table, "validation", 32).composites([0])
    assert not np.allclose(examples[0].composite, (chosen_by.composite[0].permute(1, 2, 0) + 1) * 127.5, atol=1)
    assert all((table.parent / e.photo).is_file() for e in examples)
    for one, other in zip(examples, Validation(table, 32), strict=True):
        assert np.array_equal(one.composite, other.composite)
        assert not np.array_equal(one.composite, one.real)
        assert np.array_equal(one.composite[~one.mask], one.real[~one.mask])


def test_full_masks_are_refused_and_doubles_scored_once(small, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    name = list_triplets(copy, "test")[0]
    (copy / "IHD_test.txt").write_text(f"{name.line}\n{name.line}\n")
    assert len(Triplets(copy, "test", 64)) == 1
    Image.new("L", (64, 64), 255).save(name.mask)
    with pytest.raises(ValueError, match=f"{name.name}: its mask is full"):
        evaluate(copy, [], size=64)


# --- methods


@pytest.mark.parametrize("method", [*BASELINES.values(), ModelMethod(create_model("hdnet-nano"))])
def test_baselines_and_networks_change_the_foreground_alone(method):
    given = example("one", "a", 30)
    output = method([given])[0]
    changed = np.abs(output - given.composite.astype(float)).max(axis=-1) > 1e-3
    assert not changed[~given.mask].any()
    assert changed.any() == (method is not BASELINES[COMPOSITE])


def test_damaged_weights_are_named(small, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"x.safetensors: the weights cannot be read"):
        evaluate(small, [str(tmp_path / "x.safetensors")], size=64)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["hdnet", "dovenet"])
def test_images_made_elsewhere_score_as_the_model_that_made_them(small, tmp_path, protocol):
    made = evaluate(small, ["hdnet-lite"], protocols=[protocol], size=64, images=tmp_path / "results")
    folder = tmp_path / "results" / "hdnet-lite"
    elsewhere = evaluate(small, [str(folder)], protocols=[protocol], size=64)
    same(made, elsewhere)
    flat = tmp_path / "theirs"
    flat.mkdir()
    for path in folder.rglob("*.png"):
        shutil.copy(path, flat / path.name)
    renamed = evaluate(small, [str(flat)], protocols=[protocol], size=64)
    same(made, renamed.replace({"method": {"theirs": "hdnet-lite"}}))


def test_results_of_the_composites_size_are_squeezed_as_those(small, mini, tmp_path):
    triplet = list_triplets(mini)[0]
    (tmp_path / "results").mkdir()
    shutil.copy(triplet.composite, tmp_path / "results" / f"{triplet.stem}.png")
    method = load_method(str(tmp_path / "results"))
    given = Triplets(mini, size=64)[0]
    assert np.array_equal(method([given])[0], given.composite)
    Image.new("RGB", (50, 40)).save(tmp_path / "results" / f"{triplet.stem}.png")
    with pytest.raises(ValueError, match="the result is 50x40 pixels, not 64x64 or "):
        method([given])
    with pytest.raises(ValueError, match="there is no result for"):
        method([given._replace(name="Change/none_1_1")])


def test_methods_have_names_and_are_found(tmp_path):
    assert list(load_methods(["reinhard", COMPOSITE, "hdnet-lite"])) == [COMPOSITE, "reinhard", "hdnet-lite"]
    (tmp_path / "hdnet-lite").mkdir()
    with pytest.raises(ValueError, match="two methods are called hdnet-lite: rename a file"):
        load_methods(["hdnet-lite", str(tmp_path / "hdnet-lite")])
    with pytest.raises(
        ValueError, match=r"nothing: neither a folder of results, nor a .safetensors or .onnx file, nor one of comp"
    ):
        load_methods(["nothing"])
    with pytest.raises(ValueError, match="the device tpu cannot be used here"):
        load_methods(["hdnet-lite"], "tpu")


# --- the table on disk


@pytest.fixture
def parts(monkeypatch):
    """Parts of 16 composites: the 100 of the small data set make seven."""
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 16)


def counting(monkeypatch):
    """Counts the composites that are read from now on."""
    read = []
    original = Triplets.__getitem__
    monkeypatch.setattr(Triplets, "__getitem__", lambda self, index: read.append(index) or original(self, index))
    return read


@pytest.mark.slow
def test_a_table_is_written_whole_and_read_back_to_the_last_bit(small, tmp_path, parts):
    table = evaluate(small, ["hdnet-lite"], tmp_path / "scores.csv", size=64)
    assert len(table) == 100 * 2 * len(PROTOCOLS)
    same(table, read_scores(tmp_path / "scores.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.json"]
    made_from = json.loads((tmp_path / "scores.json").read_text())
    assert (made_from["composites"], made_from["size"], list(made_from["methods"])) == (100, 64, ["hdnet-lite"])
    same(table, evaluate(small, ["hdnet-lite"], size=64))


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_where_it_was(small, tmp_path, parts, monkeypatch):
    whole = evaluate(small, ["reinhard"], size=64)
    run = partial(evaluate, small, ["reinhard"], tmp_path / "scores.csv", size=64, batch_size=2)

    def stop(self, index):
        if index == 70:
            raise KeyboardInterrupt
        return original(self, index)

    original = Triplets.__getitem__
    with monkeypatch.context() as patch:
        patch.setattr(Triplets, "__getitem__", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert sorted(path.name for path in (tmp_path / "scores.csv.parts").iterdir()) == [
        f"{start:06d}.csv" for start in (0, 16, 32, 48)
    ]
    assert not (tmp_path / "scores.csv").exists()
    read = counting(monkeypatch)
    same(run(), whole)
    assert sorted(read) == list(range(64, 100))
    read.clear()
    same(run(), whole)
    assert read == []


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_where_it_was(small, tmp_path):
    code = (
        "from hdnet_lib.evaluation import chunks, evaluate; chunks.CHUNK_SIZE = 4\n"
        f"evaluate({str(small)!r}, ['reinhard'], {str(tmp_path / 'scores.csv')!r}, size=64)"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        done = len(list(tmp_path.glob("scores.csv.parts/[0-9]*.csv")))
        while process.poll() is None and len(list(tmp_path.glob("scores.csv.parts/[0-9]*.csv"))) < done + 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "scores.csv").exists()
    subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=True)
    same(read_scores(tmp_path / "scores.csv"), evaluate(small, ["reinhard"], size=64))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.json"]


@pytest.mark.slow
def test_shards_make_the_serial_table(small, tmp_path, parts):
    whole = evaluate(small, ["reinhard"], size=64)
    shares = [
        evaluate(small, ["reinhard"], tmp_path / "scores.csv", size=64, shard=f"{share}/3") for share in (2, 3, 1)
    ]
    same(read_scores(tmp_path / "scores.csv"), whole)
    assert [share.name.nunique() for share in shares] == [32, 32, 36]
    again = evaluate(small, ["reinhard"], tmp_path / "scores.csv", size=64, shard="2/3")
    same(again, shares[0])
    with pytest.raises(ValueError, match="the share 8/8 is empty: 100 composites are shared out by 16"):
        evaluate(small, ["reinhard"], size=64, shard="8/8")


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"size": 32}, {"limit": 50}, {"models": ["xiao"]}, {"protocols": ["idih"]}])
def test_a_table_of_another_evaluation_is_not_touched(small, tmp_path, change):
    arguments = {"data": small, "models": ["reinhard"], "table": tmp_path / "scores.csv", "size": 64}
    evaluate(**arguments)
    before = (tmp_path / "scores.csv").read_bytes()
    with pytest.raises(ValueError, match=r"belongs to an evaluation with other .*: choose another name"):
        evaluate(**arguments | change)
    assert (tmp_path / "scores.csv").read_bytes() == before
    (tmp_path / "scores.json").unlink()
    with pytest.raises(ValueError, match="which tells how it was made, does not"):
        evaluate(**arguments)


def test_changed_composites_and_retrained_weights_are_another_evaluation(small, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    weights = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS / "hdnet-lite.safetensors", weights)
    run = partial(evaluate, copy, [str(weights)], tmp_path / "scores.csv", size=64, limit=4)
    first = run()
    same(run(), first)
    shutil.copy(WEIGHTS / "zoo" / "w8-hdnet.safetensors", weights)
    with pytest.raises(ValueError, match="with other methods"):
        run()
    shutil.copy(WEIGHTS / "hdnet-lite.safetensors", weights)
    same(run(), first)
    composite = list_triplets(copy)[0].composite
    Image.open(composite).point(lambda value: value // 2).save(composite)
    with pytest.raises(ValueError, match="with other images"):
        run()


def test_a_table_or_part_that_was_cut_is_not_taken_for_whole(small, tmp_path, parts):
    run = partial(evaluate, small, ["reinhard"], tmp_path / "scores.csv", ["hdnet"], size=64)
    run(shard="1/2")
    part = tmp_path / "scores.csv.parts" / "000000.csv"
    whole = part.read_text()
    part.write_text("\n".join(whole.split("\n")[:9]) + "\n")
    with pytest.raises(ValueError, match=r"000000.csv: lines are missing or too many: delete it"):
        run()
    part.write_text(whole)
    run()
    table = tmp_path / "scores.csv"
    table.write_text("\n".join(table.read_text().split("\n")[:9]) + "\n")
    with pytest.raises(ValueError, match=r"scores.csv: lines are missing or too many: delete it"):
        run()


def test_the_slower_of_two_runs_of_one_share_ends_well(small, tmp_path, monkeypatch):
    """The quicker one finishes the table, and removes the parts, while the other still scores."""
    run = partial(evaluate, small, ["reinhard"], tmp_path / "scores.csv", ["hdnet"], size=64)
    original = scoring.score_methods

    def slow(*arguments):
        scores = original(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(scoring, "score_methods", original)
            run()
        return scores

    monkeypatch.setattr(scoring, "score_methods", slow)
    same(run(), read_scores(tmp_path / "scores.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.json"]


def test_images_are_written_where_the_scores_are_there_already(small, tmp_path):
    run = partial(evaluate, small, ["reinhard"], tmp_path / "scores.csv", ["hdnet"], size=64, limit=5)
    run()
    run(images=tmp_path / "images")
    assert len(list((tmp_path / "images" / "reinhard").rglob("*.png"))) == 5


@pytest.mark.parametrize("content", ["[1, 2]", "{bad", "folder"])
def test_settings_that_cannot_be_read_are_named(small, tmp_path, content, capsys):
    made_from = tmp_path / "scores.json"
    if content == "folder":
        made_from.mkdir()
    else:
        made_from.write_text(content)
    assert cli.main(["evaluate", str(small), "--size", "64", "-o", str(tmp_path / "scores.csv")]) == 2
    assert "scores.json: this does not tell how a table was made" in capsys.readouterr().err


def test_folders_that_cannot_be_written_get_a_sentence(small, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "scores.csv.parts").touch()
    for options in (["--images", str(tmp_path / "file")], ["-o", str(tmp_path / "scores.csv")]):
        assert cli.main(["evaluate", str(small), "--size", "64", "--models", "reinhard", "--limit", "2", *options]) == 2
        assert "hdnet: " in capsys.readouterr().err


@pytest.mark.slow
def test_new_results_in_a_folder_are_another_evaluation(small, tmp_path):
    evaluate(small, ["reinhard"], size=64, images=tmp_path)
    run = partial(evaluate, small, [str(tmp_path / "reinhard")], tmp_path / "scores.csv", size=64)
    run()
    run()
    os.utime(next((tmp_path / "reinhard").rglob("*.png")), (2e9, 2e9))
    with pytest.raises(ValueError, match="with other methods"):
        run()


# --- the command


def test_the_command_prints_and_writes_every_score(small, table, tmp_path, capsys):
    arguments = ["--size", "32", "--models", "hdnet-lite", "reinhard", "--groups", "--compare", "hdnet-lite"]
    for number, data in enumerate((str(small), str(table))):
        assert cli.main(["evaluate", data, *arguments, "-o", str(tmp_path / f"{number}.csv")]) == 0
        printed = capsys.readouterr().out
        assert printed.count("| hdnet-lite |") == 1
        assert "the difference from hdnet-lite" in printed
        assert all(f"by {name}" in printed for name in ("subset", "foreground ratio", "fMSE of composite"))
        assert set(read_scores(tmp_path / f"{number}.csv").method) == {COMPOSITE, "hdnet-lite", "reinhard"}
    assert cli.main(["evaluate", str(small), "--size", "32", "--limit", "7", "--models", "reinhard"]) == 0
    assert ": 7 composites of 3 photos, 32 px, protocol hdnet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "hdnet-lite", "x/hdnet-lite.safetensors"], "two methods are called hdnet-lite: rename a file."),
        (["--size", "36"], "size must be a multiple of 8 and at least 16, not 36."),
        (["-o", "nowhere/scores.csv"], "the folder nowhere does not exist."),
        (["-o", "scores.txt"], "the name of a table of scores ends with .csv."),
        (["--compare", "x"], "--compare must be one of composite, hdnet-lite, or such a name without its seed."),
        (["--models", ""], "a model has an empty name."),
        (["--device", "meta"], "the device meta cannot be used here; use auto or cpu."),
        (["--reference", "x"], "--reference must be one of composite, hdnet-lite, not 'x'."),
        (["--shard", "1/2"], "--shard needs --output"),
        (["--shard", "3/2", "-o", "scores.csv"], "a shard is k/n with k from 1 to n, such as 2/4, not '3/2'."),
        (["--split", "none"], "no list for the none split"),
    ],
)
def test_bad_options_are_refused_before_anything_is_scored(small, arguments, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", str(small), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_model_card_quotes_what_the_command_prints(mini):
    """The row of the composite to the last digit; those of the networks as far as processors agree."""
    card = (REPOSITORY / "docs" / "weights.md").read_text()
    summary = (REPOSITORY / "hdnet_lib" / "weights" / "MODEL_CARD.md").read_text()
    table = choose_protocol(evaluate(mini, ["hdnet", "hdnet-lite", "hdnet-lite-loose"], protocols=["hdnet"]), "hdnet")
    *_, composite, full, exact, loose = cli.markdown(summarize(table, COMPOSITE)).splitlines()
    assert composite in card
    for ours in (full, exact, loose):
        name = ours.split(" | ")[0]
        first = next(line for line in card.splitlines() if line.startswith(f"{name} |"))
        quoted, computed = ([float(number) for number in re.findall(r"[-+]?\d+\.\d+", row)] for row in (first, ours))
        assert computed[:6] == pytest.approx(quoted[:6], abs=0.03)  # PSNR and gain with their intervals
        assert computed[6:8] == pytest.approx(quoted[6:8], rel=0.01)  # MSE and fMSE
        shorter = summary[summary.index("| mini test list |") :]
        short = next(line for line in shorter.splitlines() if line.startswith(f"{name} |"))
        assert float(short.split("|")[2]) == pytest.approx(computed[3], abs=0.03)
