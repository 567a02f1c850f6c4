"""`bt` in this process, on a fake model; tests/cli/test_installed.py runs the real thing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

import bridgetower.checkpoints.save  # noqa: F401 - it keeps the `resolve` that it finds: not a double
from bridgetower.errors import ModelError
from bridgetower.records import Head
from bridgetower_cli.parser import app
from tests.fakes import COLOURS, FakeEncoder, paint


class Models:
    """The models that there are: any name without a slash. Each has weights of its own."""

    def __init__(self) -> None:
        self.resolved: list[str] = []
        self.loaded: list[tuple[str, str]] = []  # name, device
        self.heads = frozenset(Head)
        self.encoder_type: Callable[..., FakeEncoder] = FakeEncoder

    def resolve(self, name: str, **options: object) -> SimpleNamespace:
        if "/" in name:
            raise ModelError(f"{name} is not on this machine")
        self.resolved.append(name)
        encoder = self.encoder_type(heads=self.heads, weights=name)
        encoder.fingerprint = replace(encoder.fingerprint, model=name)
        return self.checkpoint(name, encoder)

    def checkpoint(self, name: str, encoder: FakeEncoder) -> SimpleNamespace:
        """What `resolve` gives for this encoder."""

        def with_preprocessing(preprocessing: str) -> SimpleNamespace:
            fingerprint = replace(encoder.fingerprint, preprocessing=preprocessing)
            other = self.encoder_type(heads=encoder.heads)
            other.fingerprint, other.preprocessing = fingerprint, encoder.preprocessing.named(preprocessing)
            return self.checkpoint(name, other)

        return SimpleNamespace(
            name=name,
            heads=encoder.heads,
            preprocessing=encoder.preprocessing,
            weights_sha256=encoder.fingerprint.weights_sha256,
            encoder=encoder,
            with_preprocessing=with_preprocessing,
        )

    def load(self, checkpoint: SimpleNamespace, runtime: Any, **options: object) -> FakeEncoder:
        self.loaded.append((checkpoint.name, runtime().device))
        encoder: FakeEncoder = checkpoint.encoder
        return encoder


class Bt(Protocol):
    def __call__(self, *arguments: object, input: str | bytes | None = None) -> Result: ...


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, decode_here: None) -> Models:
    models = Models()
    monkeypatch.setattr("bridgetower.checkpoints.find.resolve", models.resolve)
    monkeypatch.setattr(
        "bridgetower.encoders.torch_encoder.fingerprint_of",
        lambda checkpoint, precision: checkpoint.encoder.fingerprint,
    )
    monkeypatch.setattr("bridgetower.encoders.torch_encoder.TorchEncoder", models.load)
    monkeypatch.setenv("BT_MODEL", "fake")
    monkeypatch.setenv("BT_DEVICE", "cpu")  # wherever the tests run
    return models


@pytest.fixture
def bt(models: Models) -> Bt:
    """Run `bt` with these arguments; what it prints and its exit code."""

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input, prog_name="bt")

    return run


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture of each colour; its parent is the current folder, and its index is ./index."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BT_INDEX", str(tmp_path / "index"))
    for colour in COLOURS:
        paint(tmp_path / "photos" / f"{colour}.png", colour)
    return tmp_path / "photos"


@pytest.fixture
def library(bt: Bt, photos: Path) -> Path:
    """The same, indexed."""
    done = bt("index", photos)
    assert done.exit_code == 0, done.stderr
    return photos
