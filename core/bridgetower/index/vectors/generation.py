"""The files of a generation of the vector file: what they are called, and holding them open."""

import hashlib
import os
from io import BufferedReader
from pathlib import Path

from bridgetower.files.regular import open_own
from bridgetower.index.catalog.reader import Catalog
from bridgetower.resources import shortage


def vectors_path(directory: Path, generation: int) -> Path:
    """What FAISS reads."""
    return directory / f"vectors-{generation}.faiss"


def codes_path(directory: Path, generation: int) -> Path:
    """Rows of a byte a number, beside lists that are not searched exactly."""
    return directory / f"vectors-{generation}.codes"


def codes_bytes(dim: int, rows: int) -> int:
    """How long the file of codes is; see docs/index-format.md."""
    return 16 + 8 * dim + rows * (8 + 4 * -(-dim // 4) + 4)


def published(directory: Path, catalog: Catalog) -> "Generation":
    """The files that a state names, opened now."""
    return Generation(directory, catalog.state().generation, coded=catalog.tuning() is not None)


def published_names(directory: Path, catalog: Catalog) -> list[Path]:
    """The files that a state names; none where no generation was published yet."""
    state = catalog.state()
    if state.vectors_sha256 is None:
        return []
    codes = [codes_path(directory, state.generation)] if catalog.tuning() is not None else []
    return [vectors_path(directory, state.generation), *codes]


class Generation:
    """The files of one generation, open from now on: a writer may remove their names, but not the files."""

    def __init__(self, directory: Path, generation: int, *, coded: bool) -> None:
        """`coded`: there should be a file of codes."""
        self.name = vectors_path(directory, generation)
        self.vectors = _open_if_there(self.name)
        self.codes = _open_if_there(codes_path(directory, generation)) if coded else None
        self.whole = self.vectors is not None and (self.codes is not None or not coded)  # all of it is there

    def intact(self, sha256: bytes | None, codes_bytes: int | None) -> bool:
        """Whether what FAISS reads has this digest, and the codes this length; rows are checked when read."""
        try:
            if self.vectors is None or hashlib.file_digest(self.vectors, "sha256").digest() != sha256:
                return False
            self.vectors.seek(0)
            return codes_bytes is None or (
                self.codes is not None and os.fstat(self.codes.fileno()).st_size == codes_bytes
            )
        except OSError:
            return False

    def close(self) -> None:
        for file in (self.vectors, self.codes):
            if file is not None:
                file.close()


def _open_if_there(path: Path) -> BufferedReader | None:
    try:
        return open_own(path)
    except OSError as error:
        if (lack := shortage(error)) is not None:
            raise lack from error
        return None  # absent, unreadable or something else: the manifest has it all
