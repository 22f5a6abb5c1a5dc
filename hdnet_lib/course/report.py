"""Run the notebooks with papermill and turn them into offline HTML pages.

python -m hdnet_lib.course.report [--profile paper] [-p NAME VALUE ...]
"""

import argparse
import base64
import html
import os
import re
import sys
import time
from pathlib import Path
from urllib.parse import quote

from hdnet_lib.utils.paths import CHECKOUT

if __name__ == "__main__" and not CHECKOUT:
    sys.exit("report: the notebooks come with the repository, not with the package: clone it, and run `make report`.")

import latex2mathml.converter
import nbformat
import papermill
import yaml
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from hdnet_lib.course.recording import recorded

NOTEBOOKS = (CHECKOUT or Path()) / "notebooks"
PATHS = ("data_root", "composite", "mask", "pool_table", "figures_dir", "scores")
"""Parameters that are paths."""
MODELS = ("model", "models", "mask_models", "swept", "model_name", "star_name")
"""Parameters that hold names of models, or paths, separated by commas."""
KERNEL_START_ERRORS = ("Kernel died before replying", "Kernel didn't respond in")
"""What Jupyter says of a kernel that never ran."""
LOG_LEVEL = ("--log-level=ERROR",)
"""Kernels warn that others on this machine could listen to them, which is so of every Jupyter."""
WIDGET = "application/vnd.jupyter.widget-view+json"
"""Kind of output that only a running kernel can show."""


def known_parameters() -> dict[str, set[str]]:
    """Names of the parameters of each notebook, by notebook; none for a notebook that cannot be read."""
    known = {}
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        try:
            known[path.stem] = set(papermill.inspect_notebook(str(path)))
        except Exception:  # it is run with the others, fails there, and is named then
            known[path.stem] = set()
    return known


def profile_parameters(profile: str, known: dict[str, set[str]]) -> dict[str, dict]:
    """Parameters of each notebook under a profile.

    "ci" is what the notebooks hold. Any other is ``notebooks/profiles/<profile>.yaml``: the entries of
    ``all`` go to every notebook that has such a parameter, those under a notebook's name to that notebook.

    Raises:
        ValueError: the profile, a notebook or a parameter in it is unknown.
    """
    if profile == "ci":
        return {name: {} for name in known}
    path = NOTEBOOKS / "profiles" / f"{profile}.yaml"
    if not path.is_file():
        profiles = ["ci", *sorted(file.stem for file in path.parent.glob("*.yaml"))]
        raise ValueError(f"There is no profile called {profile!r}. Known ones: {', '.join(profiles)}.")
    content = yaml.safe_load(path.read_text()) or {}
    parameters: dict[str, dict] = {name: {} for name in known}
    for key, value in (content.pop("all", None) or {}).items():
        set_everywhere(parameters, known, key, value)
    for name, own in content.items():
        if name not in known:
            raise ValueError(f"{path.name}: there is no notebook called {name!r}.")
        for key, value in own.items():
            set_everywhere(parameters, {name: known[name]}, key, value)
    return parameters


def set_everywhere(parameters: dict[str, dict], known: dict[str, set[str]], key: str, value: object) -> None:
    """Set one parameter of every notebook that has it.

    Raises:
        ValueError: none has it. (papermill itself would only warn.)
    """
    takers = [name for name in known if key in known[name]]
    if not takers:
        raise ValueError(f"there is no parameter {key!r}; known: {', '.join(sorted(set().union(*known.values())))}.")
    for name in takers:
        parameters[name][key] = value


def absolute_paths(parameters: dict) -> dict:
    """Parameters with absolute paths: notebooks run in their own folder, and a relative path means one from here."""

    def absolute(value: str) -> str:
        return str(Path(value).expanduser().resolve())

    result = dict(parameters)
    for key, value in parameters.items():
        if value is None:  # the notebook takes its own
            continue
        if key in PATHS and value not in ("mini", ""):
            result[key] = absolute(str(value))
        elif key in MODELS:
            models = value if isinstance(value, list) else [name.strip() for name in str(value).split(",")]
            result[key] = ", ".join(absolute(name) if "/" in name or Path(name).exists() else name for name in models)
    return result


def run_notebook(source: Path, executed: Path, parameters: dict, tries: int = 3) -> str | None:
    """Run one notebook; returns None, or a sentence that names the failing cell. The result is kept either way.

    A kernel that dies before its first word is started again: two that start at once may have chosen the same ports.
    """
    executed.unlink(missing_ok=True)  # no leftover of an earlier run
    try:
        papermill.execute_notebook(
            str(source),
            str(executed),
            parameters,
            cwd=str(source.parent),
            store_widget_state=False,
            extra_arguments=list(LOG_LEVEL),
        )
    except PapermillExecutionError as error:
        first, why = error.source.strip().split("\n")[0], error.evalue.split("\n")[0]
        return f"cell In [{error.exec_count}], which begins {first!r}: {error.ename}: {why}"
    except Exception as error:  # the kernel died, or the notebook is damaged: the others still run
        if any(sign in str(error) for sign in KERNEL_START_ERRORS) and tries > 1:
            return run_notebook(source, executed, parameters, tries - 1)
        return f"{running_cell(executed)}{type(error).__name__}: {error}".splitlines()[0]
    return None


def running_cell(executed: Path) -> str:
    """The cell that was started last before the kernel died, as the start of a sentence; empty where there is none."""
    if not executed.is_file():
        return ""
    cells = [cell for cell in nbformat.read(executed, 4).cells if cell.cell_type == "code"]
    started = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return f"the cell that begins {started[-1].source.strip().splitlines()[0]!r}: " if started else ""


def to_html(executed: Path, page: Path) -> None:
    """One self-contained page: no script, style or font from another host."""
    notebook = nbformat.read(executed, 4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_pictures(with_mathml(cell.source))
        else:
            if cell.metadata.get("jupyter", {}).get("source_hidden"):
                cell.source = "# folded away"
            cell.outputs = [without_widget(output) for output in cell.get("outputs", [])]
    exporter = HTMLExporter(template_name="lab", theme="light")
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(executed.parent), "name": executed.stem}})
    # The template loads require.js, MathJax, mermaid and widget managers from a CDN: the pages must read offline.
    body = re.sub(r"<script\b[^>]*>.*?</script>", "", body, flags=re.DOTALL)
    body = re.sub(r"<link\b[^>]*>", "", body)
    body = re.sub(r'(?<=href=")(\d\d_\w+)\.ipynb', r"\1.html", body)  # another page of this report
    body = re.sub(r'(?<=href=")(?:\.\./|solutions/)[^"#]+', lambda link: _from(page.parent, NOTEBOOKS / link[0]), body)
    page.write_text(body, encoding="utf-8")


def _from(folder: Path, target: Path) -> str:
    """The address of a file as seen from a folder."""
    try:
        return quote(Path(os.path.relpath(target, folder)).as_posix())
    except ValueError:  # Windows, another drive
        return target.resolve().as_uri()


def with_mathml(markdown: str) -> str:
    """Markdown whose formulas, between dollars, are MathML, which browsers show without a script; code stays."""

    def formula(found: re.Match) -> str:
        if found["code"]:
            return found["code"]
        display = "block" if found["block"] else "inline"
        return latex2mathml.converter.convert(found["block"] or found["inline"], display=display)

    pattern = r"(?P<code>```.*?```|`[^`]*`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$"
    return re.sub(pattern, formula, markdown, flags=re.DOTALL)


def with_pictures(markdown: str) -> str:
    """Markdown whose drawings, which lie in the notebooks' folder, stand in the text itself."""

    def drawing(found: re.Match) -> str:
        data = base64.b64encode((NOTEBOOKS / found["path"]).read_bytes()).decode()
        return f'<img alt="{html.escape(found["alt"])}" src="data:image/svg+xml;base64,{data}">'

    return re.sub(r"!\[(?P<alt>[^]]*)\]\((?P<path>images/[\w.]+)\)", drawing, markdown)


def without_widget(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output itself, or, in place of a widget, a line that says so: the figure before it stands for it."""
    if WIDGET not in output.get("data", {}):
        return output
    note = "<p><em>In a running notebook a widget stands here.</em></p>"
    return nbformat.v4.new_output("display_data", {"text/html": note})


def thumbnail(executed: Path) -> str:
    """The picture of the cell tagged "thumbnail", else the first one, as a data address; or an empty string."""
    cells = nbformat.read(executed, 4).cells
    for cell in sorted(cells, key=lambda cell: "thumbnail" not in cell.metadata.get("tags", [])):
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                return f"data:image/png;base64,{''.join(picture.split())}"
    return ""


def title(notebook: Path) -> str:
    """The first heading of a notebook."""
    for cell in nbformat.read(notebook, 4).cells:
        if match := re.search(r"^# (.+)$", cell.source, flags=re.MULTILINE):
            return match[1]
    return notebook.stem


def finish(source: Path, executed: Path, failure: str | None, seconds: float) -> dict:
    """Turn an executed notebook into a page beside it, and say what the landing page needs to know."""
    entry = {"name": source.stem, "title": source.stem, "failure": failure, "thumbnail": "", "seconds": seconds,
             "metrics": {}}  # fmt: skip
    try:
        executed.with_suffix(".html").unlink(missing_ok=True)
        to_html(executed, executed.with_suffix(".html"))
        entry |= {"title": title(executed), "thumbnail": thumbnail(executed), "metrics": recorded(executed)}
    except Exception as error:  # a damaged notebook must not keep the others from their pages
        entry["failure"] = failure or f"{type(error).__name__}: {error}".splitlines()[0]
    return entry


STYLE = """
body { font-family: system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-weight: 600; } a { color: #0063a5; text-decoration: none; } a:hover { text-decoration: underline; }
li { display: flex; gap: 1.5rem; align-items: center; padding: 1rem 0; border-top: 1px solid #ddd; }
ul { list-style: none; padding: 0; }
img { width: 20rem; max-height: 14rem; object-fit: contain; object-position: left; }
h2 { margin: 0 0 .3rem; font-size: 1.15rem; } p { margin: 0; } .failed { color: #a4262c; }
.metrics { display: flex; flex-wrap: wrap; gap: .3rem; margin-top: .5rem; font-size: .85rem; }
.metrics span { background: #eef3f7; border-radius: .3rem; padding: .1rem .45rem; }
"""
UNITS = {"db": " dB", "percent": " %", "gflop": " GFLOP"}
"""Units of recorded results, by the last part of their names."""


def metric_label(name: str, value: float | int | str) -> str:
    """A recorded result with its unit, such as "psnr: 34.8 dB" for psnr_db."""
    name, _, last = name.rpartition("_") if name.rpartition("_")[2] in UNITS else (name, "", "")
    number = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{name.replace('_', ' ')}: {number}{UNITS.get(last, '')}"


def write_index(folder: Path, entries: list[dict], profile: str) -> None:
    """The landing page, which links one page a notebook."""
    items = []
    for entry in entries:
        state = (
            f'<p class="failed">failed at {html.escape(entry["failure"])}</p>'
            if entry["failure"]
            else f"<p>ran in {entry['seconds']:.0f} s</p>"
        )
        metrics = "".join(f"<span>{html.escape(metric_label(*metric))}</span> " for metric in entry["metrics"].items())
        state += f'<p class="metrics">{metrics}</p>'
        picture = f'<img src="{entry["thumbnail"]}" alt="first figure">' if entry["thumbnail"] else ""
        link = html.escape(entry["title"])
        if (folder / f"{entry['name']}.html").is_file():
            link = f'<a href="{entry["name"]}.html">{link}</a>'
        items.append(f"<li>{picture}<div><h2>{link}</h2>{state}</div></li>")
    page = (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>HDNet Lab report</title>"
        f"<style>{STYLE}</style></head><body><h1>HDNet Lab report</h1>"
        f"<p>Profile: {html.escape(profile)}. {len(entries)} notebooks, run in "
        f"{sum(entry['seconds'] for entry in entries):.0f} s.</p><ul>{''.join(items)}</ul></body></html>"
    )
    part = folder / ".index.html.part"
    part.write_text(page, encoding="utf-8")
    part.replace(folder / "index.html")


def main() -> int:
    """Run every notebook; the exit status is 0 only where all of them ran."""
    parser = argparse.ArgumentParser(description="Run the notebooks and write reports/index.html.")
    parser.add_argument("--profile", default="ci")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="for every notebook that has it, such as -p data_root PATH")  # fmt: skip
    parser.add_argument("--out", type=Path, help="default: reports/, or reports/PROFILE/ for another profile than ci")
    arguments = parser.parse_args()

    known = known_parameters()
    names = list(known)
    try:
        parameters = profile_parameters(arguments.profile, known)
        for key, value in arguments.parameter:
            set_everywhere(parameters, known, key, absolute_paths({key: yaml.safe_load(value)})[key])
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2

    folder = NOTEBOOKS.parent / "reports"
    folder = arguments.out or (folder if arguments.profile == "ci" else folder / arguments.profile)
    folder.mkdir(parents=True, exist_ok=True)
    changed = {f"{key} = {value}" for own in parameters.values() for key, value in own.items()}
    for name, own in parameters.items():
        if "figures_dir" in known[name]:
            own.setdefault("figures_dir", str(folder.resolve() / "figures"))
    entries = []
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name}", flush=True)
        source, executed = NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb"
        started = time.monotonic()
        failure = run_notebook(source, executed, parameters[name])
        entries.append(finish(source, executed, failure, time.monotonic() - started))
    write_index(folder, entries, ", ".join([arguments.profile, *sorted(changed)]))

    failed = [entry for entry in entries if entry["failure"]]
    for entry in failed:
        print(f"FAILED {entry['name']}, {entry['failure']}", file=sys.stderr)
    print(f"{len(entries) - len(failed)} of {len(entries)} notebooks ran; see {folder / 'index.html'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
