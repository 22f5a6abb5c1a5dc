"""Gains with careless masks."""

import numpy as np
import pytest

from hdnet_lib.cli import main
from hdnet_lib.data.careless import CONDITIONS, EXACT
from hdnet_lib.data.masks import perturb_mask
from hdnet_lib.evaluation.examples import open_examples
from hdnet_lib.evaluation.methods import BASELINES, COMPOSITE
from hdnet_lib.evaluation.robustness import ROBUST, robust_gains, under_conditions
from hdnet_lib.evaluation.scoring import evaluate, score_methods
from hdnet_lib.evaluation.summary import choose_protocol


def oracle(examples):
    """Knows the real photo, and paints it where the mask that it is told says so."""
    return [np.where(e.mask[..., None], e.real, e.composite) for e in examples]


def test_an_oracle_is_only_as_good_as_its_mask(small):
    examples = open_examples(str(small), "test", 64, False, 6)
    methods = under_conditions({COMPOSITE: BASELINES[COMPOSITE], "oracle": oracle})
    assert len(methods) == 2 * len(CONDITIONS)
    table = choose_protocol(score_methods(examples, methods, ["hdnet"]), "hdnet")
    gains = robust_gains(table)
    assert list(gains.index.get_level_values("condition")) == [*CONDITIONS, ROBUST]
    gain = gains.gain["oracle"]
    for larger in (EXACT, "1 px larger", "3 px larger", "fading over 2 px"):
        name = "oracle" if larger == EXACT else f"oracle @ {larger}"
        assert (table[table.method == name].psnr == 100).all()
        assert gain[larger] > 20
    assert gain[EXACT] > gain["1 px smaller"] > gain["2 px smaller"] > 0
    assert gain[ROBUST] == pytest.approx(gain[list(CONDITIONS)].mean())
    assert (gains.worst <= gains.gain).all()
    assert gains.worse.sum() == 0


def test_the_mask_that_a_method_is_told(small):
    example = open_examples(str(small), "test", 64, False, 1)[0]
    mask, composite = example.mask.copy(), example.composite.copy()
    seen = []
    methods = under_conditions({"spy": lambda batch: seen.extend(batch) or [e.composite for e in batch]})
    for method in methods.values():
        method([example])
    told = dict(zip(CONDITIONS, seen, strict=True))
    assert np.array_equal(told[EXACT].mask, example.mask)
    assert np.array_equal(told["2 px smaller"].mask, perturb_mask(example.mask, "eroded", 2))
    assert np.array_equal(told["fading over 2 px"].mask, example.mask)
    assert not np.array_equal(told["fading over 2 px"].composite, example.composite)
    assert np.array_equal(example.mask, mask)
    assert np.array_equal(example.composite, composite)


def test_the_command_prints_a_row_for_each_method(small, tmp_path, capsys):
    command = ["evaluate", str(small), "--models", "reinhard", "--size", "64", "--limit", "4", "--protocols", "hdnet"]
    assert main([*command, "--masks", "-o", str(tmp_path / "scores.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(index for index, line in enumerate(lines) if "| 1 px smaller |" in line)
    assert lines[heading].count("|") == len(CONDITIONS) + 3
    assert lines[heading + 2].startswith("| reinhard | ")
    assert not any(" @ " in line for line in lines)
    plain = evaluate(small, ["reinhard"], size=64, limit=4, protocols=["hdnet"])
    assert f"{plain[plain.method == 'reinhard'].psnr.mean():.2f}" in "\n".join(lines)
    assert main([*command, "-o", str(tmp_path / "scores.csv")]) == 2  # another evaluation
