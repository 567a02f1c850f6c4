"""The one-way flow of imports, and who may touch which third-party library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "bridgetower"
CLI = ROOT / "bridgetower_cli"

# A module of `bridgetower` imports only modules with a smaller number.
LAYERS = {
    "ahead": 0,
    "blocks": 0,
    "errors": 0,
    "float16": 0,
    "losses": 0,
    "moves": 0,
    "patterns": 0,
    "records": 0,
    "regular": 0,
    "roots": 0,
    "schema": 0,
    "vectors": 0,
    "conditions": 1,
    "config": 1,
    "heads": 1,
    "inputs": 1,
    "resources": 1,
    "write_ahead_log": 1,
    "codes": 2,
    "decode": 2,
    "disk": 2,
    "features": 2,
    "layout": 2,
    "lock": 2,
    "model": 2,
    "os_errors": 2,
    "scan": 2,
    "threads": 2,
    "atomic": 3,
    "documents": 3,
    "inverted": 3,
    "jsonl": 3,
    "manifest": 3,
    "notebook": 3,
    "npy": 3,
    "preprocess": 3,
    "quantized": 3,
    "watch": 3,
    "cache": 4,
    "decoder": 4,
    "directory": 4,
    "hub": 4,
    "manifest_writer": 4,
    "protocol": 4,
    "published": 4,
    "runtime": 4,
    "tensors": 4,
    "tokenizer": 4,
    "training": 4,
    "truth": 4,
    "backup": 5,
    "decoders": 5,
    "faiss_check": 5,
    "neighbours": 5,
    "pickles": 5,
    "pictures": 5,
    "publishing": 5,
    "recall_store": 5,
    "evaluation": 6,
    "faiss_store": 6,
    "local_engine": 6,
    "matching": 6,
    "weights": 6,
    "prepared": 7,
    "saving": 7,
    "store": 7,
    "writer": 7,
    "calibration": 8,
    "encoder": 8,
    "exporting": 8,
    "foreign": 8,
    "readers": 8,
    "recall": 8,
    "upkeep": 8,
    "verify": 8,
    "exported": 9,
    "fill": 9,
    "indexing": 9,
    "search": 9,
    "importing": 10,
    "models": 10,
    "updating": 10,
    "index_models": 11,
    "queries": 12,
    "library": 13,
    "__init__": 14,  # the public names: it may import everything, nothing may import it
}

# Third-party packages that only the named modules may use, and the one side that core never sees.
OWNERS = {
    "torch": {
        "blocks",
        "model",
        "losses",
        "layout",
        "tensors",
        "pickles",
        "weights",
        "saving",
        "quantized",
        "prepared",
        "encoder",
        "runtime",
        "threads",
        "training",
    },
    "faiss": {"vectors", "inverted"},
    "sqlite3": {"disk", "schema", "manifest", "manifest_writer", "backup"},
    "PIL": {"decode", "preprocess"},
    "tokenizers": {"tokenizer"},
    "safetensors": {"tensors"},
    "huggingface_hub": {"hub"},
    "watchfiles": {"watch"},
    "bridgetower_cli": set(),
    "rich": set(),
    "typer": set(),
    "transformers": set(),
}


def imported(source: str) -> Iterator[str]:
    """Every absolute dotted name that `source` imports anywhere, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides its layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(module: str, source: str) -> list[str]:
    """What `module` of `bridgetower` (its name without the package) may not import but does, or why it has no place."""
    if module not in LAYERS:
        return [f"{module} has no layer: give it one"]
    found = []
    for name in imported(source):
        package, _, rest = name.partition(".")
        if package in OWNERS and module not in OWNERS[package]:
            found.append(f"{module} imports {package}")
        elif package == "bridgetower":
            target = rest.partition(".")[0]
            target = target if target in LAYERS else "__init__"  # `from bridgetower import Hit`
            if LAYERS[target] >= LAYERS[module]:
                found.append(f"{module} (layer {LAYERS[module]}) imports {target} (layer {LAYERS[target]})")
    return found


def core_modules() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def layer_name(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: path.relative_to(CORE).as_posix())
def test_a_module_imports_only_lower_layers(path: Path) -> None:
    assert violations(layer_name(path), path.read_text("utf-8")) == []


def test_no_layer_is_kept_for_a_module_that_is_gone() -> None:
    assert set(LAYERS) == {layer_name(path) for path in core_modules()}


@pytest.mark.parametrize("package", [CORE, CLI], ids=lambda path: path.name)
def test_the_product_never_imports_transformers(package: Path) -> None:
    sources = {path: path.read_text("utf-8") for path in package.rglob("*.py")}
    assert sources
    for path, source in sources.items():
        assert not [name for name in imported(source) if name.partition(".")[0] == "transformers"], path


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("scan", "from bridgetower.store import Store", "scan (layer 2) imports store (layer 7)"),
        ("scan", "from bridgetower import decode", "scan (layer 2) imports decode (layer 2)"),
        ("scan", "import bridgetower.search as s", "scan (layer 2) imports search (layer 9)"),
        ("search", "from bridgetower import Hit", "search (layer 9) imports __init__ (layer 14)"),
        ("fill", "def f():\n    from bridgetower.search import recall", "fill (layer 9) imports search (layer 9)"),
        ("fill", "if TYPE_CHECKING:\n    import torch.nn", "fill imports torch"),
        ("store", "import PIL.Image", "store imports PIL"),
        ("encoder", "from sqlite3 import connect", "encoder imports sqlite3"),
        ("search", "from bridgetower_cli import render", "search imports bridgetower_cli"),
        ("weights", "import transformers", "weights imports transformers"),
        ("helpers", "", "helpers has no layer: give it one"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str, complaint: str) -> None:
    assert violations(module, source) == [complaint]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("store", "import numpy as np\nfrom bridgetower.manifest import Manifest\nfrom bridgetower import records"),
        ("encoder", "import torch\nfrom bridgetower.weights import load_model"),
        ("__init__", "from bridgetower.search import search"),
    ],
)
def test_a_lawful_import_passes(module: str, source: str) -> None:
    assert violations(module, source) == []
