"""Imports run one way only, so that a reader can stop at any floor of the house."""

import ast
import shutil
from pathlib import Path

import hdnet_lib

LAYERS = (
    "utils version",
    "model data",
    "composites",
    "peers",
    "registry",
    "released",
    "inference",
    "evaluation",
    "training",
    "course cli",
)
"""From the ground up; what shares a floor does not know its neighbour."""
MODULES = ("cli", "version", "registry", "released")
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names.split()}


def upward_imports(package: Path) -> list[str]:
    """Every import of a package's part by another one that stands on the same floor or below."""
    found = []
    for file in [*sorted(package.glob("*/*.py")), *(package / f"{name}.py" for name in MODULES)]:
        own = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for module in filter(None, modules):
                package_name, _, rest = module.partition(".")
                other = rest.partition(".")[0]
                if package_name == "hdnet_lib" and other != own and FLOOR.get(other, 99) >= FLOOR[own]:
                    found.append(f"{file.relative_to(package)} imports {module}")
    return found


def test_every_part_has_a_floor_and_imports_run_down():
    package = Path(hdnet_lib.__file__).parent
    parts = {path.parent.name for path in package.glob("*/__init__.py")}
    assert parts | set(MODULES) == FLOOR.keys()
    assert upward_imports(package) == []


def test_a_planted_upward_import_is_found(tmp_path):
    package = tmp_path / "hdnet_lib"
    shutil.copytree(Path(hdnet_lib.__file__).parent, package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for line in ("from hdnet_lib.evaluation.metrics import score", "import hdnet_lib", "import hdnet_lib.model.rain"):
        with (package / "data" / "masks.py").open("a") as file:
            file.write(f"{line}\n")
    assert upward_imports(package) == [
        "data/masks.py imports hdnet_lib.evaluation.metrics",
        "data/masks.py imports hdnet_lib",
        "data/masks.py imports hdnet_lib.model.rain",
    ]
