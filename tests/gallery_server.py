"""A real `bt serve` over some pictures of the gallery, and its answers as the library computes them."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgetower import Library, Model

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "examples" / "gallery"
TOKEN = "a-token-of-the-tests"
NAMES = (
    "a-bat-above-a-pumpkin-by-the-sea.jpg",
    "two-cats-on-a-couch-in-the-desert.jpg",
    "a-dog-on-a-couch-in-the-rain.jpg",
    "two-cats-in-the-snow.jpg",
    "a-cat-on-a-couch-in-a-meadow.jpg",
)


@dataclass(frozen=True)
class Served:
    """A server that runs, and the model of its index."""

    url: str
    token: str
    model: Model
    files: list[Path]

    @property
    def ids(self) -> list[str]:
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]

    @property
    def urls(self) -> list[str]:
        return [data_url(file) for file in self.files]

    def matches(self, text: str, files: Sequence[Path] | None = None) -> list[float]:
        """The match of a text with each picture, as the library computes it."""
        scores = self.model.match(self.files if files is None else files, [text])
        return [score.match for score in scores if score.match is not None]


def data_url(file: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"


@contextmanager
def gallery_served(folder: Path, *, token: str | None = TOKEN) -> Iterator[Served]:
    """A server in a process of its own, over pictures in an index of the demo model."""
    (folder / "photos").mkdir()
    files = [Path(shutil.copy(GALLERY / name, folder / "photos")) for name in NAMES]
    (folder / "run").mkdir(mode=0o700)
    environment: dict[str, Any] = {"XDG_RUNTIME_DIR": folder / "run", "XDG_STATE_HOME": folder / "state"}
    environment |= {"XDG_CACHE_HOME": folder / "cache", "BT_PRECISION": "fp32", "OMP_NUM_THREADS": "1"}
    with Library(folder / "index", "demo", precision="fp32") as library:
        library.index([folder / "photos"])
    options: list[str | Path] = ["--port", "0", "--index", folder / "index"]
    if token is not None:
        (folder / "token").write_text(token)
        (folder / "token").chmod(0o600)
        options += ["--token-file", folder / "token"]
    command = [sys.executable, "-P", "-m", "bridgetower_cli", "serve", *options]
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r" at (http://\S+);", line)
            assert found, line
            yield Served(found[1], token or "none", Model("demo", precision="fp32"), files)
        finally:
            process.kill()
