"""What is kept in the cache folder of the user, all of which may be deleted at any time:

converted/<sha256>/model.safetensors   from the pickles with this digest
digests/<sha256 of what>.json          a digest, valid while nothing has touched its files
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
    """Where copies are kept that may be deleted at any time."""
    return Path(platformdirs.user_cache_dir("bridgetower"))


def digest_of_files(files: tuple[Path, ...]) -> str:
    """Hex digest, sha256, of the bytes of files, one after the other. Raises OSError."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def remembered(files: tuple[Path, ...], what: str, compute: Callable[[], str]) -> str:
    """The digest of `what` is in `files`, kept until something touches them: gigabytes take seconds.

    Whoever writes to a file can set its modification time back, but not the time of its last change of any kind.
    Raises OSError where a file is gone, and what `compute` raises.
    """
    files = tuple(file.resolve() for file in files)  # the Hub's cache is made of links
    key = hashlib.sha256(what.encode() + b"\0".join(map(os.fsencode, files))).hexdigest()
    memory = cache_folder() / "digests" / f"{key}.json"
    stats = [(str(file), file.stat()) for file in files]
    valid_for = [[name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]
    try:
        note = json.loads(memory.read_text(encoding="utf-8"))
        if note["files"] == valid_for:
            return str(note["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # never hashed, or the note is damaged
    digest = compute()
    with suppress(OSError):  # a read-only or full disk costs time, not correctness
        memory.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(memory.parent, r"[0-9a-f]{64}\.json")
        write_json(memory, {"files": valid_for, "sha256": digest})
    return digest
