"""The form of the notebooks. That they run, and print what is committed, is nbval's and papermill's part."""

import ast

import nbformat
import papermill
import pytest
from conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


def test_every_cell_was_run_in_order_without_error(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_one_parameters_cell_of_scalars_comes_first(path):
    cells = code_cells(path)
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == cells[:1]
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(ast.literal_eval(statement.value), str | int | float | bool)


def test_papermill_sees_the_parameters(path):
    assigned = {statement.targets[0].id for statement in ast.parse(code_cells(path)[0].source).body}
    assert set(papermill.inspect_notebook(str(path))) == assigned


def test_notebooks_define_nothing(path):
    for cell in code_cells(path):
        definitions = [
            node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        assert definitions == []


def test_template(path):
    cells = nbformat.read(path, 4).cells
    first = cells[0].source
    assert first.startswith(f"# {path.stem[:2]} ")
    assert all(part in first for part in ("**What you will learn**", "**Paper:**", "**Run time:**"))
    last = cells[-1].source
    assert all(heading in last for heading in ("## What we saw", "## Exercises", "## References"))
    assert nbformat.read(path, 4).metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 1_500_000


def test_only_volatile_cells_are_exempt_from_comparison():
    """Those that train or score, which print progress bars and nothing else, and one that shows times."""
    exempt = [
        (path.stem, cell.source.split("\n")[0], len(cell.outputs))
        for path in NOTEBOOKS
        for cell in code_cells(path)
        if {"nbval-ignore-output", "nbval-skip", "raises-exception"} & set(cell.metadata.get("tags", []))
        or "NBVAL" in cell.source
    ]
    assert exempt == [
        ("05_train", "folder = tempfile.TemporaryDirectory()", 0),
        ("05_train", "tiny = TrainingConfig(", 0),
        ("06_evaluate", "names = parse_models(models)", 0),
        ("07_k_sweep", "methods = load_methods(parse_models(models), device)", 0),
        ("07_k_sweep", "trained_k = load_model(swept).local_dynamic.k", 0),
        ("08_ablation", "methods = load_methods(parse_models(models), device)", 0),
        ("08_ablation", "masked = load_methods(parse_models(mask_models), device)", 0),
        ("09_paper_vs_code", "networks = {}", 0),
        ("10_speed_and_resolution", "here = benchmark(", 0),
        (
            "10_speed_and_resolution",
            'here[["machine", "model", "size", "seconds", "times_floor", "peak_gb"]].round(3)',
            1,
        ),
        ("10_speed_and_resolution", "folder = tempfile.TemporaryDirectory()", 0),
        (
            "10_speed_and_resolution",
            'methods = {"composite": BASELINES["composite"], model: Network(load_model(model), choose_device(device))}',
            0,
        ),
    ]
