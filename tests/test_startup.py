"""Help, and questions about the index, are answered before anything heavy is loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.serving.local_server import FakeEngine, runtime_folder, serving

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
HEAVY = set("PIL faiss huggingface_hub mcp mcp_types numpy pydantic rich safetensors tokenizers".split())
HEAVY |= {"tomlkit", "tomllib", "torch", "transformers"}
HEAVY |= {"platformdirs"} if sys.platform == "linux" else set()  # elsewhere every command asks it for its folders

# Runs its first argument as a program with the others as its command line, then lists what that loaded.
PROBE = """
import sys
program, report, *arguments = sys.argv[1:]
sys.argv = ["bt", *arguments]
code = 0
try:
    exec(program)
except SystemExit as exit:
    code = exit.code
with open(report, "w") as file:
    file.write(" ".join({name.partition(".")[0] for name in sys.modules}))
sys.exit(code)
"""


def run(program: str, arguments: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    report = folder / "modules"
    command = [sys.executable, "-c", PROBE, program, str(report), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert report.exists(), done.stderr
    return done, set(report.read_text().split()) & HEAVY


def bt(arguments: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    return run("from bridgetower_cli import app; sys.exit(app.run())", arguments, folder)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["search", "--help"], ["train", "--help"], ["mcp", "--help"], ["model", "--help"]],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    done, loaded = bt(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert loaded == set()


def test_status_of_an_index_that_is_not_there_loads_nothing_heavy(tmp_path: Path) -> None:
    done, loaded = bt(["status", "--index", str(tmp_path / "index")], tmp_path)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert loaded == set()


# Values of every kind: texts, lists, and those with a parser; each command ends before it has anything to do.
@pytest.mark.parametrize(
    "command",
    [
        ["index", "nowhere", "--exclude", "*.gif", "--max-pixels", "2MP"],
        ["search", "a", "--image", "a.png", "--under", "b", "--since", "2000", "--top", "3", "--budget", "2s"],
        ["search", "a", "--index", "index", "--min-match", "0.5", "--device", "cpu", "--json", "--quiet"],
        ["search"],
        ["fill", "a <mask>", "--depth", "3", "--features-cache", "1GB", "--features-dir", "features"],
        ["rerank", "a cat", "--top"],
        ["eval", "captions.jsonl", "--depth", "1", "--depth", "2"],
        [
            "train",
            "nowhere",
            "--init",
            "demo",
            "--out",
            "new",
            "--lr",
            "1e-5",
            "--freeze",
            "text",
            "--save-every",
            "2m",
        ],
        ["export", "there"],
        ["import", "export", "--map", "a=b"],
        ["status", "--verbose"],
        ["forget", "a.png", "b.png"],
        ["prune", "--dry-run"],
        ["verify", "--repair"],
        ["model"],
        ["model", "convert", "nowhere"],
    ],
    ids=" ".join,
)
def test_no_command_loads_pydantic(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_INDEX", str(tmp_path / "index"))
    done, loaded = bt(command, tmp_path)
    assert done.returncode in (2, 5, 6), done.stderr
    assert "pydantic" not in loaded


@pytest.mark.parametrize("command", [["search", "two cats"], ["search", "--image", "a.png"], ["fill", "a <mask>"]])
def test_a_query_to_an_index_that_is_not_there_loads_no_engine(command: list[str], tmp_path: Path) -> None:
    done, loaded = bt([*command, "--index", str(tmp_path / "index"), "--model", "demo"], tmp_path)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error: no index at ") and done.stderr.count("\n") == 1
    assert loaded <= {"PIL", "numpy"}


def test_status_and_an_index_run_that_finds_nothing_to_do_load_nothing_heavy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        shutil.copy(GALLERY / "two-cats-on-a-couch-in-the-desert.jpg", tmp_path / "photos" / name / "cats.jpg")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    index = ["index", str(tmp_path / "photos"), "--index", str(tmp_path / "index")]
    assert bt([*index, "--model", "demo"], tmp_path)[1] >= {"torch", "faiss", "numpy", "PIL"}
    for options in ([], ["--model", "demo", "--preprocessing", "hf"]):
        done, loaded = bt([*index, *options], tmp_path)
        assert done.returncode == 3, done.stderr
        assert "indexed 0, reused 0, unchanged 2, removed 0, skipped 1: 3 files" in done.stderr
        assert loaded == set()
    done, loaded = bt(["status", "--index", str(tmp_path / "index")], tmp_path)
    assert "1, in 2 files" in done.stdout
    assert loaded == set()


def test_wrong_usage_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    done, loaded = bt(["search", "--no-such-option"], tmp_path)
    assert done.returncode == 2, done.stderr
    assert loaded == set()


def test_the_library_loads_nothing_heavy_until_a_name_is_used(tmp_path: Path) -> None:
    _, loaded = run("import bridgetower", [], tmp_path)
    assert loaded == set()


@pytest.mark.parametrize(
    "stage", ["retrieval.search.pages", "retrieval.indexing", "retrieval.fill", "retrieval.matching", "library"]
)
def test_a_stage_loads_no_engine_as_others_may_stand_behind_the_seams(stage: str, tmp_path: Path) -> None:
    done, loaded = run(f"import bridgetower.{stage}", [], tmp_path)
    assert done.returncode == 0, done.stderr
    assert loaded <= {"PIL", "numpy"}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix sockets and users")
def test_a_command_that_a_server_answers_loads_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"no picture, which the client does not know")
    monkeypatch.setenv("BT_INDEX", str(tmp_path / "index"))
    monkeypatch.setenv("BT_MODEL", "demo")
    commands = [
        ["search", "two cats", "--no-rerank"],
        ["search", "--image", str(picture), "--under", "*"],
        ["match", str(picture), "--text", "a cat"],
    ]
    with runtime_folder(), serving(FakeEngine(), tmp_path / "index", default_model="demo"):
        for command in commands:
            done, loaded = bt([*command, "-v"], tmp_path)
            assert done.stderr.startswith("served by bt serve"), done.stderr
            assert loaded == set()


# How the threads of OpenMP wait for each other

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def waiting(program: str, **given: str) -> dict[str, str]:
    """What says how threads wait, in the environment of `program` at its end."""
    program = f"import json, os, sys; {program}; print(json.dumps(dict(os.environ)))"
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | given
    command = [sys.executable, "-c", program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    left = json.loads(done.stdout.splitlines()[-1])
    return {name: left[name] for name in WAITING if name in left}


def test_threads_of_the_command_line_sleep_while_they_wait() -> None:
    said = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    assert waiting("from bridgetower_cli import app; app.run()") == said


@pytest.mark.parametrize("name", WAITING)
def test_how_threads_wait_is_left_to_a_user_who_says_it(name: str) -> None:
    assert waiting("from bridgetower_cli import app; app.run()", **{name: "1"}) == {name: "1"}


def test_the_library_does_not_say_how_threads_wait() -> None:
    assert waiting("from bridgetower import Library, Model") == {}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch comes with another OpenMP")
def test_the_libraries_read_how_threads_wait_when_they_are_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bridgetower_cli", "index", str(GALLERY / "two-cats-on-a-couch-in-the-desert.jpg")]
    command += ["--model", "demo", "--index", str(tmp_path / "index")]
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment["OMP_DISPLAY_ENV"] = "verbose"  # each prints what it has read
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)) == {"10000"}


def test_the_probe_sees_what_is_loaded(tmp_path: Path) -> None:
    done, loaded = run("import numpy; raise SystemExit(7)", [], tmp_path)
    assert done.returncode == 7
    assert loaded == {"numpy"}


def test_the_process_ends_as_soon_as_everything_is_written(tmp_path: Path) -> None:
    program = "import atexit, sys; atexit.register(print, 'taken apart'); sys.argv = ['bt', '--help'];"
    program += "from bridgetower_cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout and "taken apart" not in done.stdout


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    picture = GALLERY / "two-cats-on-a-couch-in-the-desert.jpg"
    done, _ = bt(["index", str(picture), "--index", str(folder / "index"), "--model", "demo"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "index"


@pytest.mark.parametrize(
    "options", [[], ["--model", "demo"], ["--precision", "bf16"], ["--since", "2000"]], ids=" ".join
)
def test_a_search_that_verifies_nothing_loads_neither_pytorch_nor_pillow(
    options: list[str], index: Path, tmp_path: Path
) -> None:
    shutil.copytree(index, tmp_path / "index")  # a search keeps features, which the next one would find
    options = ["--index", str(tmp_path / "index"), *options]
    done, loaded = bt(["search", "two cats", "--no-rerank", "--json", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"].endswith("two-cats-on-a-couch-in-the-desert.jpg")
    assert loaded - {"platformdirs"} == {"faiss", "numpy", "safetensors", "tokenizers"}
    done, loaded = bt(["search", "two cats", "--json", *options], tmp_path)
    assert json.loads(done.stdout)["verified"] and loaded >= {"torch", "PIL"}
