import nbformat
import pytest

from hdnet_lib.course.recording import METRICS_TYPE, recorded
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
