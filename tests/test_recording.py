import nbformat
import pytest

from hdnet_lib.course.recording import METRICS_TYPE, as_meant, parse_numbers, recorded
from hdnet_lib.course.report import run_notebook


@pytest.mark.slow
def test_what_a_notebook_records_is_read_back(tmp_path):
    cells = [
        "from hdnet_lib.course.recording import record\nrecord(psnr=34.5, model='ours')",
        "print('x')",
        "record(worse=3)",
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=metadata)
    nbformat.write(book, tmp_path / "source.ipynb")
    assert run_notebook(tmp_path / "source.ipynb", tmp_path / "run.ipynb", {}) is None
    assert recorded(tmp_path / "run.ipynb") == {"psnr": 34.5, "model": "ours", "worse": 3}
    outputs = nbformat.read(tmp_path / "run.ipynb", 4).cells[0].outputs
    assert outputs[0].data["text/plain"] == "psnr: 34.5\nmodel: ours"
    assert METRICS_TYPE in outputs[0].data
    assert recorded(tmp_path / "source.ipynb") == {}
    (tmp_path / "source.ipynb").write_text("no notebook")
    with pytest.raises(ValueError, match=r"source.ipynb: this is no notebook"):
        recorded(tmp_path / "source.ipynb")


@pytest.mark.parametrize(
    ("value", "default", "meant"),
    [
        ("false", True, False),
        ("No", True, False),
        (0, True, False),
        ("true", False, True),
        (True, False, True),
        ("12", 3, 12),
        (12.0, 3, 12),
        ("0.25", 0.5, 0.25),
        (1, 0.5, 1.0),
        (19, "3 5", "19"),
        ([19, 42], "3 5", "19, 42"),
        (["hdnet-lite", "reinhard"], "w8-hdnet", "hdnet-lite, reinhard"),
        (None, "mini", "mini"),
        (None, 500, 500),
        (None, True, True),
    ],
)
def test_parameters_are_taken_as_they_are_meant(value, default, meant):
    taken = as_meant("name", value, default)
    assert (taken, type(taken)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("value", "default", "sentence"),
    [
        ("maybe", True, "the parameter name is true or false, not 'maybe'"),
        (2, True, "true or false"),
        ([], False, "true or false"),
        ("many", 3, "a whole number, not 'many'"),
        (2.5, 3, "a whole number"),
        (True, 3, "a whole number"),
        ("inf", 3, "a whole number"),
        ("half", 0.5, "a number, not 'half'"),
        ([1], 3, "a whole number"),
    ],
)
def test_parameters_of_another_type_are_refused(value, default, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_meant("name", value, default)


def test_numbers():
    assert parse_numbers("19 42") == parse_numbers("19,42") == parse_numbers("19, 42") == parse_numbers([19, 42])
    for wrong in ("", "one", "1.5", None, ["x"], 3.5):
        with pytest.raises(ValueError, match="whole numbers with spaces"):
            parse_numbers(wrong)
