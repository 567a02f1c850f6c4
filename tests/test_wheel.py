"""What a person gets from `pip install`: the two packages, complete, and nothing else."""

import os
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "bridgetower"
DEMO_LIMIT = 12 * 1024 * 1024  # bytes, unpacked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.iterdir()
    return zipfile.ZipFile(path)


def metadata_folder(wheel: zipfile.ZipFile) -> str:
    [folder] = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    return folder


def test_top_level_names(wheel: zipfile.ZipFile) -> None:
    names = {name.partition("/")[0] for name in wheel.namelist()}
    assert names == {"bridgetower", "bridgetower_cli", metadata_folder(wheel)}


def test_every_source_file_is_in_it(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    sources = [path.relative_to(ROOT / "core") for path in CORE.rglob("*.py")]
    sources += [path.relative_to(ROOT) for path in (ROOT / "bridgetower_cli").rglob("*.py")]
    assert packed == {path.as_posix() for path in sources}


def test_types_are_announced(wheel: zipfile.ZipFile) -> None:
    assert "bridgetower/py.typed" in wheel.namelist()


def test_the_demo_model_is_in_it_and_stays_small(wheel: zipfile.ZipFile) -> None:
    packed = {info.filename: info for info in wheel.infolist() if info.filename.startswith("bridgetower/assets/demo/")}
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert f"bridgetower/assets/demo/{name}" in packed
    for name, info in packed.items():
        assert wheel.read(info) == (ROOT / "core" / name).read_bytes(), name
    assert sum(info.file_size for info in packed.values()) <= DEMO_LIMIT


def test_metadata(wheel: zipfile.ZipFile) -> None:
    folder = metadata_folder(wheel)
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (metadata["Name"], metadata["Version"]) == ("bridgetower-cli", project["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()
    assert "bt = bridgetower_cli.app:main" in wheel.read(f"{folder}/entry_points.txt").decode()


def test_no_development_tool_is_required_at_run_time(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(wheel.read(f"{metadata_folder(wheel)}/METADATA").decode())
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("torch") for line in required)
    assert not [line for line in required if line.startswith(("pytest", "mypy", "ruff", "transformers", "hypothesis"))]


def test_it_runs_unpacked_far_from_the_source_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    program = (
        "import bridgetower, bridgetower_cli.app as app, sys;"
        "assert bridgetower.__file__.startswith(sys.path[0]) and app.__file__.startswith(sys.path[0]);"
        "sys.argv = ['bt', '--help']; app.main()"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout


def test_the_page_is_in_it(wheel: zipfile.ZipFile) -> None:
    page = CORE / "serving" / "http" / "page"
    names = [file.relative_to(ROOT / "core").as_posix() for file in page.iterdir()]
    assert "bridgetower/serving/http/page/index.html" in names
    for name in names:
        assert wheel.read(name) == (ROOT / "core" / name).read_bytes(), name
    style = "bridgetower_cli/showing/page.css"  # of the page of results
    assert wheel.read(style) == (ROOT / style).read_bytes()
