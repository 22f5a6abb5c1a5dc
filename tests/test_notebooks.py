"""The form of the notebooks. That they run, and print what is committed, is nbval's and papermill's part."""

import ast

import nbformat
import papermill
import pytest
from conftest import REPOSITORY

from hdnet_lib.composites.photo_dataset import PhotoDataset
from hdnet_lib.course.recording import parameter_names

WIDGETS = ("HarmonizeYourPhoto(", "explore_neighbors(", "browse_kernels(", "browse_by_ratio(")
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((REPOSITORY / "notebooks" / "solutions").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(12)]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_cell_was_run_in_order_without_error(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize(("name", "parameter"), [("01_composites_and_data", "numbers"), ("05_train", "picks")])
def test_no_picture_of_the_photo_without_a_licence_is_committed(name, parameter, mini):
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    shown = papermill.inspect_notebook(str(path))[parameter]["default"].strip('"')
    photos = PhotoDataset(mini / "pool.csv", "train", 32).photos([int(number) for number in shown.split()], 0)
    assert photos
    assert not [photo for photo in photos if "motorcycle" in photo]


def test_one_parameters_cell_of_scalars_comes_first(path):
    cells = code_cells(path)
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == cells[:1]
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(ast.literal_eval(statement.value), str | int | float | bool)


def test_papermill_sees_the_parameters(path):
    assert set(papermill.inspect_notebook(str(path))) == parameter_names(code_cells(path)[0].source)


def test_notebooks_define_nothing(path):
    if path.stem == "11_from_scratch":
        pytest.skip("this one writes the network itself")
    for cell in code_cells(path):
        if "exercise" in cell.metadata.get("tags", []):
            continue
        definitions = [
            node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        assert definitions == []


def test_template(path):
    cells = nbformat.read(path, 4).cells
    first = cells[0].source
    assert first.startswith(f"# {path.stem[:2]} ")
    assert all(part in first for part in ("**What you will learn**", "**Paper:**", "**Run time:**"))
    headings = [line for cell in cells for line in cell.source.split("\n") if line.startswith("## ")]
    assert headings[-3:] == ["## What we saw", "## Exercises", "## References"]
    assert "check_parameters()" in code_cells(path)[1].source
    assert nbformat.read(path, 4).metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 1_500_000


def test_a_figure_stands_before_every_widget(path):
    """The page must read without a kernel."""
    shown = 0
    for cell in code_cells(path):
        if cell.source.startswith(WIDGETS):
            assert shown
        shown += any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_only_volatile_cells_are_exempt_from_comparison():
    """Widgets, cells that train or score, which print progress bars and nothing else, and one that shows times."""
    exempt = [
        (path.stem, cell.source.split("\n")[0], len(cell.outputs))
        for path in [*NOTEBOOKS, *SOLUTIONS]
        for cell in code_cells(path)
        if {"nbval-ignore-output", "nbval-skip", "raises-exception"} & set(cell.metadata.get("tags", []))
        or "NBVAL" in cell.source
    ]
    widgets = [cell for cell in exempt if cell[1].startswith(WIDGETS)]
    assert [(path, outputs) for path, _, outputs in widgets] == [
        ("00_quickstart", 0), ("02_local_dynamic", 0), ("03_mask_aware_global_dynamic", 0),
        ("06_evaluate", 0),
    ]  # fmt: skip
    assert [cell for cell in exempt if cell not in widgets] == [
        ("00_quickstart", "HTML(before_after(before, after))", 1),
        ("03_mask_aware_global_dynamic", 'methods = {"composite": BASELINES["composite"]}', 0),
        ("05_train", "folder = tempfile.TemporaryDirectory()", 0),
        ("05_train", "tiny = TrainingConfig(", 0),
        ("05_train", "record(", 1),
        ("06_evaluate", "names = parse_models(models)", 0),
        ("07_k_sweep", "methods = load_methods(parse_models(models), device)", 0),
        ("07_k_sweep", "trained_k = load_model(swept).local_dynamic.k", 0),
        ("08_ablation", "methods = load_methods(parse_models(models), device)", 0),
        ("08_ablation", "masked = load_methods(parse_models(mask_models), device)", 0),
        ("09_paper_vs_code", "networks = {}", 0),
        ("10_speed_and_resolution", "here = benchmark(", 0),
        (
            "10_speed_and_resolution",
            'here[["machine", "model", "size", "seconds", "roofline_ratio", "peak_gb"]].round(3)',
            1,
        ),
        ("10_speed_and_resolution", "folder = tempfile.TemporaryDirectory()", 0),
        (
            "10_speed_and_resolution",
            'methods = {"composite": BASELINES["composite"], model: ModelMethod(load_model(model), choose_device(device))}',  # noqa: E501
            0,
        ),
    ]
