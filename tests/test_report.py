import re
import sys

import nbformat
import pytest
import yaml
from conftest import REPOSITORY

from hdnet_lib.course import report


def notebook(path, *sources, parameters="number = 1"):
    cells = [nbformat.v4.new_markdown_cell(f"# {path.stem} <title>")]
    cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "NOTEBOOKS", tmp_path)
    notebook(
        tmp_path / "00_good.ipynb", "import matplotlib.pyplot as plt; plt.plot([number]); plt.show()", "print(number)"
    )
    notebook(tmp_path / "01_bad.ipynb", "print('before')", "1 / 0", parameters="other = 2")
    notebook(tmp_path / "02_after.ipynb", "print('still runs', number)")
    return tmp_path


def run(monkeypatch, out, *arguments):
    monkeypatch.setattr(sys, "argv", ["report", "--out", str(out), *arguments])
    return report.main()


@pytest.mark.slow
def test_a_failing_notebook_is_named_and_the_others_still_run(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "reports"
    assert run(monkeypatch, out, "-p", "number", "7") == 1
    printed = capsys.readouterr()
    assert "FAILED 01_bad, cell In [3], which begins '1 / 0': ZeroDivisionError: division by zero" in printed.err
    assert "2 of 3 notebooks ran" in printed.out
    index = (out / "index.html").read_text()
    assert "Profile: ci, number = 7. 3 notebooks, run in " in index
    assert "00_good &lt;title&gt;" in index
    assert index.count("<li>") == 3
    assert index.count('class="failed"') == 1
    assert index.count("data:image/png;base64,") == 1
    assert "still runs 7" in (out / "02_after.html").read_text()
    assert "before" in (out / "01_bad.html").read_text()


@pytest.mark.slow
def test_a_damaged_notebook_and_a_dead_kernel_do_not_stop_the_others(folder, tmp_path, monkeypatch, capsys):
    (folder / "00_good.ipynb").write_text("{ not a notebook")
    notebook(folder / "01_bad.ipynb", "import os; os._exit(3)")
    assert run(monkeypatch, tmp_path / "reports") == 1
    printed = capsys.readouterr()
    assert "FAILED 00_good, " in printed.err
    assert "FAILED 01_bad, the cell that begins 'import os; os._exit(3)': DeadKernelError" in printed.err
    assert "1 of 3 notebooks ran" in printed.out
    index = (tmp_path / "reports" / "index.html").read_text()
    assert 'href="00_good.html"' not in index
    assert 'href="02_after.html"' in index


@pytest.mark.slow
@pytest.mark.parametrize("sign", ["Kernel died before replying to it", "Kernel didn't respond in 60 seconds"])
@pytest.mark.parametrize("deaths", [2, 3])
def test_a_kernel_that_never_ran_is_started_again(folder, tmp_path, monkeypatch, deaths, sign):
    calls, true = [], report.papermill.execute_notebook

    def dies(*arguments, **options):
        calls.append(arguments)
        if len(calls) <= deaths:
            raise RuntimeError(sign)
        return true(*arguments, **options)

    monkeypatch.setattr(report.papermill, "execute_notebook", dies)
    failure = report.run_notebook(folder / "00_good.ipynb", tmp_path / "run.ipynb", {})
    assert failure == (f"RuntimeError: {sign}" if deaths == 3 else None)
    assert len(calls) == 3


@pytest.mark.slow
def test_a_relative_data_root_means_one_from_here(folder, tmp_path, monkeypatch):
    notebook(folder / "00_good.ipynb", "print(data_root)", parameters="data_root = 'mini'")
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, tmp_path / "reports", "-p", "data_root", "2024")
    assert str(tmp_path / "2024") in (tmp_path / "reports" / "00_good.html").read_text()


def test_pages_ask_no_other_host(folder, tmp_path, monkeypatch):
    (folder / "01_bad.ipynb").unlink()
    assert run(monkeypatch, tmp_path / "reports") == 0
    for page in (tmp_path / "reports").glob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert re.findall(r"""(?:src|data)=["']?https?:|url\(["']?https?:|@import|<link""", text) == []


def test_pages_hold_their_pictures_and_their_links_arrive(tmp_path):
    text = "[next](04_architecture.ipynb), [code](../hdnet_lib/cli.py), ![bells](images/rain.svg)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    nbformat.write(notebook, tmp_path / "03_some.ipynb")
    report.to_html(tmp_path / "03_some.ipynb", tmp_path / "03_some.html")
    page = (tmp_path / "03_some.html").read_text()
    assert 'href="04_architecture.html"' in page
    assert 'alt="bells" src="data:image/svg+xml;base64,' in page
    code = re.search(r'href="([^"]+cli\.py)"', page)[1]
    assert (tmp_path / code).resolve() == REPOSITORY / "hdnet_lib" / "cli.py"


@pytest.mark.slow
def test_the_landing_page_shows_results_with_units_and_the_picture_that_is_tagged(folder, tmp_path, monkeypatch):
    (folder / "01_bad.ipynb").unlink()
    record = "from hdnet_lib.course.recording import record; record(psnr_k1_db=34.5, sky_percent=22, composites=1200)"
    plot = "import matplotlib.pyplot as plt; plt.figure(figsize=(1, 1)); plt.plot([number]); plt.show()"
    notebook(folder / "02_after.ipynb", "import matplotlib.pyplot as plt; plt.plot([5, 1]); plt.show()", plot, record)
    book = nbformat.read(folder / "02_after.ipynb", 4)
    book.cells[3].metadata["tags"] = ["thumbnail"]
    nbformat.write(book, folder / "02_after.ipynb")
    assert run(monkeypatch, tmp_path / "reports") == 0
    index = (tmp_path / "reports" / "index.html").read_text()
    for shown in ("psnr k1: 34.5 dB", "sky: 22 %", "composites: 1,200"):
        assert f"<span>{shown}</span>" in index
    executed = nbformat.read(tmp_path / "reports" / "02_after.ipynb", 4)
    assert "".join(executed.cells[3].outputs[0].data["image/png"].split()) in index
    assert "".join(executed.cells[2].outputs[0].data["image/png"].split()) not in index


def test_formulas_become_mathml_and_code_does_not():
    text = report.with_mathml("with $x_1$ and $$\\frac{a}{b}$$ but `cost $5 or $6`\n```\n$HOME $PATH\n```")
    assert text.count("<math") == 2
    assert "<mfrac>" in text
    assert "`cost $5 or $6`" in text
    assert "$HOME $PATH" in text


def test_a_widget_becomes_a_line_that_says_so(folder, tmp_path, monkeypatch):
    for name in ("01_bad", "02_after"):
        (folder / f"{name}.ipynb").unlink()
    notebook(folder / "00_good.ipynb", "import ipywidgets; ipywidgets.IntSlider(description='speed')")
    assert run(monkeypatch, tmp_path / "reports") == 0
    page = (tmp_path / "reports" / "00_good.html").read_text()
    assert "In a running notebook a widget stands here." in page


def test_profiles(folder):
    known = report.known_parameters()
    assert report.profile_parameters("ci", known) == {"00_good": {}, "01_bad": {}, "02_after": {}}
    (folder / "profiles").mkdir()
    profile = folder / "profiles" / "paper.yaml"
    profile.write_text(yaml.safe_dump({"all": {"number": 5}, "01_bad": {"other": 9}}))
    expected = {"00_good": {"number": 5}, "01_bad": {"other": 9}, "02_after": {"number": 5}}
    assert report.profile_parameters("paper", known) == expected
    for content, sentence in (
        ({"all": {"numbre": 5}}, "no parameter 'numbre'"),
        ({"01_bad": {"number": 5}}, "no parameter 'number'"),
        ({"09_none": {"number": 5}}, "no notebook called '09_none'"),
    ):
        profile.write_text(yaml.safe_dump(content))
        with pytest.raises(ValueError, match=sentence):
            report.profile_parameters("paper", known)
    with pytest.raises(ValueError, match=r"Known ones: ci, paper"):
        report.profile_parameters("laptop", known)


def test_unknown_parameter_is_refused_before_anything_runs(folder, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "reports", "-p", "nubmer", "7") == 2
    assert "no parameter 'nubmer'; known: number, other" in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_shipped_profiles_fit_the_notebooks(profile):
    assert report.profile_parameters(profile, report.known_parameters())


def test_every_parameter_that_takes_a_weights_file_is_known_as_one():
    """Else a relative path would mean one from the folder of the notebooks."""
    for path in sorted(report.NOTEBOOKS.glob("[0-9]*.ipynb")):
        source = next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
        for line in source.splitlines():
            if ".safetensors" in line and not line.startswith("output"):
                assert line.split(" = ")[0] in report.MODELS
