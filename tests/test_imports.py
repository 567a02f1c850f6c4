"""The contracts of `pyproject.toml` see what breaks them, and no module hides from them."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "bridgetower"
PACKAGES = sorted(path.parent for path in CORE.rglob("__init__.py"))


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("files/npy.py", "from bridgetower.index import reader", "Imports of bridgetower point down"),
        ("pictures/decode.py", "from bridgetower.files import npy", "Imports of bridgetower point down"),
        ("retrieval/search/pages.py", "from bridgetower import library", "Imports of bridgetower point down"),
        ("helpers.py", "", "Imports of bridgetower point down"),
        ("index/roots.py", "from bridgetower.index import writer", "Imports of the index point down"),
        ("files/regular_files.py", "from bridgetower.files import atomic", "No circle in any package"),
        ("index/roots.py", "import torch.nn", "The index and its files know no model and no picture"),
        (
            "index/reader.py",
            "from bridgetower.pictures import decode",
            "The index and its files know no model and no picture",
        ),
        ("transfer/export.py", "from bridgetower.encoders import protocol", "Transfer knows no model"),
        (
            "retrieval/fill.py",
            "def f():\n    from bridgetower.encoders import torch_encoder",
            "A task knows an encoder by its protocol alone",
        ),
        ("training/trainer.py", "import bridgetower.index.writer", "Training knows no encoder and no index"),
        (
            "training/objective.py",
            "from bridgetower.pictures import preprocess",
            "The objective knows no data and no file",
        ),
        (
            "retrieval/fill.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "Each third party has its owners",
        ),
        ("errors.py", "from bridgetower import records", "Imports of bridgetower point down"),
        ("library.py", "import rich", "Each third party has its owners"),
        ("index/vectors/faiss/build.py", "import faiss", "Each third party has its owners"),
        (
            "encoders/checked.py",
            "def f():\n    from bridgetower.encoders import torch_encoder",
            "The seam for computing knows no implementation",
        ),
        (
            "index/vectors/protocol.py",
            "from bridgetower.index.vectors.faiss import flat",
            "The seam for recall knows no implementation",
        ),
        (
            "transfer/export.py",
            "from bridgetower.index.recovery import backup",
            "Recovery is for the check and the writer",
        ),
        ("models/model.py", "from bridgetower.training import losses", "Models know no training and no transfer"),
        (
            "checkpoints/save.py",
            "from bridgetower.pictures import decode",
            "Checkpoints use of pictures the preprocessing",
        ),
        ("index/directory.py", "from sqlite3 import connect", "Each third party has its owners"),
        ("library.py", "from bridgetower.serving import engine", "Imports of bridgetower point down"),
        ("serving/mcp/asking.py", "import mcp_types", "Each third party has its owners"),
        (
            "serving/local/wire.py",
            "from bridgetower.retrieval.search import request",
            "The client of a server needs no model and no picture",
        ),
    ],
)
def test_a_planted_violation_is_caught(module: str, line: str, contract: str, tmp_path: Path) -> None:
    broken = broken_contracts(tmp_path, {f"bridgetower/{module}": line})
    assert contract in broken


def test_the_command_line_leaves_heavy_libraries_alone(tmp_path: Path) -> None:
    broken = broken_contracts(tmp_path, {"bridgetower_cli/app.py": "def f():\n    import numpy"})
    assert broken == ["The command line leaves the heavy libraries to bridgetower"]


@pytest.mark.parametrize(
    "line", ["import bridgetower.models", "from bridgetower.index import reader", "from bridgetower import moments"]
)
def test_the_command_line_finds_no_way_past_the_public_interface(line: str, tmp_path: Path) -> None:
    assert broken_contracts(tmp_path, {"bridgetower_cli/app.py": line}) == [
        "The command line uses the public interface alone"
    ]


def test_nothing_is_broken_where_nothing_is_planted(tmp_path: Path) -> None:
    assert broken_contracts(tmp_path, {}) == []


def broken_contracts(folder: Path, planted: dict[str, str]) -> list[str]:
    """The names of the contracts that a copy of the sources breaks, in which lines were added to some modules."""
    for top in (CORE, ROOT / "bridgetower_cli"):
        for path in top.rglob("*.py"):
            copy = folder / top.name / path.relative_to(top)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text("utf-8"), "utf-8")
    for name, line in planted.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    command += ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    names = [contract["name"] for contract in config()["contracts"]]
    return [name for name in names if f"{name} BROKEN" in " ".join(done.stdout.split())]


def config() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"][
        "importlinter"
    ]
    return found


@pytest.mark.parametrize("package", PACKAGES[1:], ids=lambda path: path.relative_to(CORE).as_posix())
def test_a_package_is_described_and_holds_nothing_else(package: Path) -> None:
    [description] = ast.parse((package / "__init__.py").read_text("utf-8")).body
    assert isinstance(description, ast.Expr) and isinstance(description.value, ast.Constant)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(CORE).as_posix() or "bridgetower")
def test_a_package_is_small_enough_to_look_over(package: Path) -> None:
    assert len(list(package.glob("*.py"))) <= 12
