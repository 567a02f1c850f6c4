"""The vector files of a generation: their names, and access to them while a writer may remove them."""

import hashlib
import os
from io import BufferedReader
from pathlib import Path

from bridgetower.files.regular_files import open_own
from bridgetower.index.catalog.reader import Catalog
from bridgetower.resources import shortage


def vectors_path(directory: Path, generation: int) -> Path:
    """Return the path of the file that FAISS reads."""
    return directory / f"vectors-{generation}.faiss"


def codes_path(directory: Path, generation: int) -> Path:
    """Return the path of the codes of one byte per number, which only an approximate search needs."""
    return directory / f"vectors-{generation}.codes"


def codes_bytes(dim: int, rows: int) -> int:
    """Return the length of a file of codes in bytes; see docs/index-format.md."""
    return 16 + 8 * dim + rows * (8 + 4 * -(-dim // 4) + 4)


def published(directory: Path, catalog: Catalog) -> "Generation":
    """Open the files that the state of a catalog names."""
    return Generation(directory, catalog.state().generation, coded=catalog.tuning() is not None)


def published_names(directory: Path, catalog: Catalog) -> list[Path]:
    """Return the paths of the files that a state names; empty if no generation was published yet."""
    state = catalog.state()
    if state.vectors_sha256 is None:
        return []
    codes = [codes_path(directory, state.generation)] if catalog.tuning() is not None else []
    return [vectors_path(directory, state.generation), *codes]


class Generation:
    """The open files of one generation: they stay readable after a writer removes their names."""

    def __init__(self, directory: Path, generation: int, *, coded: bool) -> None:
        """`coded`: the generation has a file of codes, too."""
        self.name = vectors_path(directory, generation)
        self.vectors = _open_if_there(self.name)
        self.codes = _open_if_there(codes_path(directory, generation)) if coded else None
        self.whole = self.vectors is not None and (self.codes is not None or not coded)  # all files exist

    def intact(self, sha256: bytes | None, codes_bytes: int | None) -> bool:
        """Return whether the file of FAISS has this digest and the codes this length; a search checks their rows."""
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
        return None  # missing, unreadable or no file: searches read the vectors from the manifest
