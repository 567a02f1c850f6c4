"""What every test stands on: no network, and no way to a person's own index, models or settings."""

import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest

from bridgetower_cli.app import wait_without_spinning

Zone = Callable[[str], None]

SCRATCH = pytest.StashKey[Path]()

NOT_QUICK = ("cli", "faults", "network", "parity", "checkpoints")  # folders, for want of PyTorch or of time

# Folders that an option of their own adds: they need more packages, or take minutes.
ON_DEMAND = {Path(__file__).with_name(name): name for name in ("cluster", "clients", "web")}

# The terminal that happens to run the tests decides nothing about what the command line prints.
TERMINAL_VARIABLES = (
    *("COLUMNS", "LINES", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS"),
    *("KONSOLE_VERSION", "LC_TERMINAL", "NO_HYPERLINKS", "TERM_PROGRAM", "TMUX", "VTE_VERSION", "WT_SESSION"),
)


def uses_network(config: pytest.Config) -> bool:
    """Whether the tests that download real weights were asked for: `pytest -m network`."""
    return config.option.markexpr == "network"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="skip what needs PyTorch, another process, or long")
    parser.addoption("--cluster", action="store_true", help="run the tests that start clusters, too")
    parser.addoption("--clients", action="store_true", help="run the tests with clients of other services, too")
    parser.addoption("--web", action="store_true", help="run the tests of the page in a browser, too")
    parser.addoption("--rewrite", action="store_true", help="write what is printed into the documents that differ")
    parser.addoption("--screenshots", metavar="FOLDER", help="with --web, write the pictures of docs/page.md there")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave some folders out of a quick run, and some out of most; None leaves the rest to pytest."""
    option = ON_DEMAND.get(collection_path) or ON_DEMAND.get(collection_path.parent)
    if option is not None:
        return None if config.getoption(option) else True
    return True if config.option.quick and collection_path.name in NOT_QUICK else None


class NoTorch:
    """A finder that skips the test, or the whole file, that imports PyTorch."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "torch":
            pytest.skip("needs PyTorch", allow_module_level=True)


def no_process(*_: object, **__: object) -> NoReturn:
    pytest.skip("needs another process")


def pytest_configure(config: pytest.Config) -> None:
    """Settle what third-party libraries read only once, when they are imported; `isolated` does the rest."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background: processes would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.quick:
        sys.meta_path.insert(0, NoTorch())
    for name in [*TERMINAL_VARIABLES, *(name for name in os.environ if name.startswith("BT_"))]:
        os.environ.pop(name, None)
    wait_without_spinning()  # a thread that spins takes the core of another process of the run
    if not uses_network(config):  # a run with it uses, and fills, the real cache: weights are gigabytes
        scratch = config.stash[SCRATCH] = Path(tempfile.mkdtemp(prefix="bt-tests-"))
        os.environ["HF_HOME"] = str(scratch / "huggingface")
        os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    if scratch := config.stash.get(SCRATCH, None):
        shutil.rmtree(scratch, ignore_errors=True)


def pytest_report_header() -> str:
    return (
        f"python {platform.python_version()}, torch {version('torch')}, faiss {version('faiss-cpu')}, "
        f"SQLite {sqlite3.sqlite_version}, transformers {version('transformers')}, {os.cpu_count()} CPUs"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not uses_network(config):
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(pytest.mark.skip(reason="downloads real weights: run it with pytest -m network"))
    if config.option.quick:
        for item in items:
            if item.get_closest_marker("slow") or item.get_closest_marker("process"):
                item.add_marker(pytest.mark.skip(reason="takes long, or needs another process"))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a home of its own, seen by its subprocesses too; in a quick run there are none."""
    if request.config.option.quick:
        monkeypatch.setattr(subprocess.Popen, "__init__", no_process)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    if not uses_network(request.config):
        monkeypatch.setenv("HF_HOME", str(home / "huggingface"))


@pytest.fixture
def decode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in this process, in tests of other things: each run of an index starts processes, which takes longer."""
    from tests.fakes import DecodePoolHere, GridPoolHere

    monkeypatch.setattr("bridgetower.encoders.local_engine.DecodePool", DecodePoolHere)
    monkeypatch.setattr("bridgetower.training.data.look.DecodePool", DecodePoolHere)
    monkeypatch.setattr("bridgetower.training.data.decoding.DecodePool", DecodePoolHere)
    monkeypatch.setattr("bridgetower.retrieval.duplicates.looks.GridPool", GridPoolHere)


@pytest.fixture
def zone() -> Iterator[Zone]:
    """Set this machine's clock to a time zone, such as "Asia/Tokyo"."""
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process cannot be set here")
    with pytest.MonkeyPatch.context() as patch:

        def set_to(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        yield set_to
    time.tzset()
