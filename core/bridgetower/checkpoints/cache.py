"""The cache folder of the user, in which every file may be deleted at any time:

converted/<sha256>/model.safetensors   weights converted from the pickles with this digest
digests/<sha256 of the key>.json       a digest of files, valid until one of them changes
prepared/                              see `bridgetower.encoders.weight_cache`
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from bridgetower.files.atomic import remove_abandoned, write_json
from bridgetower.files.regular_files import is_own


def cache_folder() -> Path:
    """Return the cache folder, which may be absent."""
    return Path(platformdirs.user_cache_dir("bridgetower"))


def digest_of_files(files: tuple[Path, ...]) -> str:
    """Return the sha256, in hex, of the concatenated bytes of files. Raises OSError."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def remembered(files: tuple[Path, ...], what: str, compute: Callable[[], str]) -> str:
    """Return the digest of `what` in `files`, cached until one of them changes, as hashing gigabytes takes seconds.

    The ctime of a file counts, too, because a program can set back the mtime but not the ctime. Raises OSError if a
    file is gone, and the errors of `compute`.
    """
    cached, valid_for = _entry(files, what)
    known = _read_entry(cached, valid_for)
    if known is not None:
        return known
    digest = compute()
    with suppress(OSError):  # on a read-only or full disk the next call hashes again
        cached.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(cached.parent, r"[0-9a-f]{64}\.json")
        write_json(cached, {"files": valid_for, "sha256": digest})
    return digest


def known_digest(files: tuple[Path, ...], what: str) -> str | None:
    """Return the digest that `remembered` has cached, None if it would have to compute it. Raises OSError."""
    return _read_entry(*_entry(files, what))


def forget_digests(folder: Path) -> None:
    """Remove the cached digests of files in this folder, which are gone."""
    below = f"{folder.resolve()}{os.sep}"
    with suppress(OSError):
        for cached in _own_files(cache_folder() / "digests", r"[0-9a-f]{64}\.json"):
            with suppress(OSError, ValueError, TypeError, KeyError, IndexError):
                if all(str(file[0]).startswith(below) for file in json.loads(cached.read_bytes())["files"]):
                    cached.unlink()


def converted_copy(files: tuple[Path, ...]) -> list[Path]:
    """Return the file in the cache that was converted from these pickles, if there is one. Raises OSError."""
    digest = known_digest(files, "files")
    return [] if digest is None else _own_files(cache_folder() / "converted" / digest, r"model\.safetensors")


def is_converted(file: Path) -> bool:
    """Whether a file is one of the cache that was converted from pickles."""
    return file.parent.parent == cache_folder() / "converted"


def prepared_copies(weights_sha256: str, config_sha256: str) -> list[Path]:
    """Return the files in the cache with these weights, in any precision. Raises OSError."""
    return _own_files(cache_folder() / "prepared", rf"{weights_sha256[:16]}-{config_sha256[:16]}-.+\.safetensors")


def _own_files(folder: Path, form: str) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if re.fullmatch(form, file.name) and is_own(file)]


def _entry(files: tuple[Path, ...], what: str) -> tuple[Path, list[list[object]]]:
    """Return the file that caches a digest, and the state of the files for which it is valid. Raises OSError."""
    files = tuple(file.resolve() for file in files)  # the Hub's cache consists of links
    key = hashlib.sha256(what.encode() + b"\0".join(map(os.fsencode, files))).hexdigest()
    stats = [(str(file), file.stat()) for file in files]
    valid_for: list[list[object]] = [[name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]
    return cache_folder() / "digests" / f"{key}.json", valid_for


def _read_entry(cached: Path, valid_for: list[list[object]]) -> str | None:
    try:
        entry = json.loads(cached.read_text(encoding="utf-8"))
        return str(entry["sha256"]) if entry["files"] == valid_for else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not cached yet, or the cached file is damaged
