"""The cache folder of the user, in which every file may be deleted at any time:

converted/<sha256>/model.safetensors   weights converted from the pickles with this digest
digests/<sha256 of the key>.json       a digest of files, valid until one of them changes
prepared/                              see `bridgetower.encoders.weight_cache`
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from bridgetower.files.atomic import remove_abandoned, write_json


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
    files = tuple(file.resolve() for file in files)  # the Hub's cache consists of links
    key = hashlib.sha256(what.encode() + b"\0".join(map(os.fsencode, files))).hexdigest()
    cached = cache_folder() / "digests" / f"{key}.json"
    stats = [(str(file), file.stat()) for file in files]
    valid_for = [[name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]
    try:
        entry = json.loads(cached.read_text(encoding="utf-8"))
        if entry["files"] == valid_for:
            return str(entry["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not cached yet, or the cached file is damaged
    digest = compute()
    with suppress(OSError):  # on a read-only or full disk the next call hashes again
        cached.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(cached.parent, r"[0-9a-f]{64}\.json")
        write_json(cached, {"files": valid_for, "sha256": digest})
    return digest
