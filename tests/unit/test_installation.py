"""The command that adds an extra fits how this distribution was installed."""

import json
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from bridgetower.installation import how_to_install


@pytest.fixture(autouse=True)
def _active_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    how_to_install.cache_clear()
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)


def test_another_environment_than_the_active_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    note_origin(monkeypatch, None)
    monkeypatch.setattr("sys.base_prefix", "/usr")
    for active in ("/another", None):
        how_to_install.cache_clear()
        monkeypatch.setenv("VIRTUAL_ENV", active) if active else monkeypatch.delenv("VIRTUAL_ENV")
        assert how_to_install("raw") == f"{sys.executable} -m pip install 'bridgetower-cli[raw]'"
    how_to_install.cache_clear()
    monkeypatch.setattr("sys.base_prefix", sys.prefix)  # the interpreter of the system
    assert how_to_install("raw") == "pip install 'bridgetower-cli[raw]'"


def note_origin(monkeypatch: pytest.MonkeyPatch, written: str | None) -> None:
    class Noted(Distribution):
        def read_text(self, filename: str) -> str | None:
            assert filename == "direct_url.json"
            return written

        def locate_file(self, path: object) -> Path:
            raise AssertionError

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Noted())


def test_from_a_clone_the_command_names_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "constraints.txt").touch()
    note_origin(monkeypatch, json.dumps({"url": clone.as_uri(), "dir_info": {"editable": True}}))
    assert how_to_install("heif") == f"pip install -c constraints.txt '.[heif]', in {clone}"


@pytest.mark.parametrize("written", ['{"url": "file:///gone/x.whl", "archive_info": {}}', "{", "[]", '{"url": 1}'])
def test_without_a_clone_to_name(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note_origin(monkeypatch, written)
    assert how_to_install("photos") == "pip install -c constraints.txt '.[photos]', in the clone"


def test_from_an_index_of_packages_the_command_names_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    note_origin(monkeypatch, None)
    assert how_to_install("raw") == "pip install 'bridgetower-cli[raw]'"


@pytest.mark.parametrize(
    ("note", "command", "pins"),
    [
        ("pipx_metadata.json", "pipx install --force", "--pip-args='-c constraints.txt'"),
        ("uv-receipt.toml", "uv tool install --force", "-c constraints.txt"),
    ],
)
def test_an_environment_of_pipx_or_uv_is_replaced_as_a_whole(
    note: str, command: str, pins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They own their environments: pip within them is overwritten, or missing."""
    (tmp_path / note).touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    (tmp_path / "constraints.txt").touch()
    note_origin(monkeypatch, json.dumps({"url": tmp_path.as_uri()}))
    assert how_to_install("heif") == f"{command} {pins} '.[heif]', in {tmp_path}"
    how_to_install.cache_clear()
    note_origin(monkeypatch, None)
    assert how_to_install("heif") == f"{command} 'bridgetower-cli[heif]'"
