"""The rooms depend on each other in one direction, files stay small, and light rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "noisekit"
ROOMS = [
    "gradients",
    "problems",
    "noise",
    "sde",
    "optimizers",
    "theory",
    "validation",
    "results",
    "study",
    "truth",
    "plots",
    "report",
    "cli",
]
FOUNDATION = {"errors", "_typing", "_readable", "_intervals", "__version__"}
WITHOUT_TORCH = ["plots", "report", "results"]
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str | None:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else None


def imported_modules(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(room: str) -> list[Path]:
    return [path for path in FILES if room_of(path) == room]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_to_the_left(room):
    files = files_of(room)
    assert files
    for path in files:
        allowed = set(ROOMS[: ROOMS.index(room) + 1]) | FOUNDATION
        if path == PACKAGE / "sde" / "solution.py":
            allowed.add("results")  # Solution.to_dataset, when called
        for module in imported_modules(ast.parse(path.read_text())):
            if module.startswith("noisekit."):
                assert module.split(".")[1] in allowed, f"{path} imports {module}"


@pytest.mark.parametrize("room", ROOMS[: ROOMS.index("results")])
def test_xarray_stays_in_results_and_to_its_right(room):
    for path in files_of(room):
        tree = ast.parse(path.read_text())
        for_types_only = {
            id(node)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
            for node in ast.walk(branch)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in for_types_only:
                assert "xarray" not in ast.unparse(node), path


def test_no_file_is_long():
    assert not [path for path in FILES if len(path.read_text().splitlines()) > 400]


def test_every_room_is_known():
    assert {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} == set(ROOMS)


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_reading_rooms_start_without_torch(room):
    code = f"import sys, noisekit.{room}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists():
    import noisekit

    for name in noisekit.__all__:
        assert getattr(noisekit, name) is not None


def test_an_unknown_public_name_is_an_attribute_error():
    import noisekit

    with pytest.raises(AttributeError, match="no attribute 'gradient_statistic'"):
        _ = noisekit.gradient_statistic
