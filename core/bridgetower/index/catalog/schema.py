"""The schema of the manifest: its tables, the checksums of their rows, and the upgrades from older formats.

docs/index-format.md is the contract; a test compares its SQL with this module.
"""

import sqlite3
import struct
import zlib
from collections.abc import Callable
from typing import Any

FORMAT_VERSION = 6
APPLICATION_ID = 0x42546978  # "BTix"
KEEPING_SINCE = 5  # the format that has the table keeping
STORE_SINCE = 6  # the format that has the table store
HASH_BYTES = 32  # of SHA-256
PAGE_BYTES = 8192  # holds seven vectors of 512 numbers; a page of 4096, the default, would stay a quarter empty

SCHEMA = (
    """CREATE TABLE fingerprint (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        model TEXT NOT NULL,
        revision TEXT NOT NULL,
        weights_sha256 TEXT NOT NULL,
        config_sha256 TEXT NOT NULL,
        preprocessing TEXT NOT NULL,
        preprocessing_version INTEGER NOT NULL,
        precision_family TEXT NOT NULL,
        dim INTEGER NOT NULL,
        tokenizer_sha256 TEXT,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        images INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        covered INTEGER NOT NULL,
        vectors_sha256 BLOB,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE tuning (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        lists INTEGER NOT NULL,
        trained INTEGER NOT NULL,
        effort INTEGER NOT NULL,
        candidates INTEGER NOT NULL,
        recall REAL NOT NULL,
        texts INTEGER NOT NULL,
        pictures INTEGER NOT NULL,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE keeping (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        capacity INTEGER NOT NULL,
        under BLOB,
        made_by TEXT,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE store (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        address TEXT NOT NULL,
        name TEXT NOT NULL,
        home TEXT NOT NULL,
        token INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        arrangement TEXT NOT NULL,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE queries (
        id INTEGER PRIMARY KEY,
        vector BLOB NOT NULL,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE roots (
        path BLOB PRIMARY KEY,
        scanned_at INTEGER,
        crc32 INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        taken_at INTEGER,
        decoding INTEGER NOT NULL,
        vector BLOB NOT NULL,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE parts (
        image INTEGER NOT NULL REFERENCES images (id),
        part INTEGER NOT NULL,
        vector BLOB NOT NULL,
        crc32 INTEGER NOT NULL,
        PRIMARY KEY (image, part)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE files (
        path BLOB PRIMARY KEY,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        taken_at INTEGER,
        sidecars INTEGER NOT NULL,
        metadata INTEGER NOT NULL,
        decoding INTEGER,
        image INTEGER REFERENCES images (id),
        reason TEXT,
        crc32 INTEGER NOT NULL,
        CHECK ((image IS NULL) <> (reason IS NULL)),
        CHECK ((decoding IS NULL) = (reason IS NULL))
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE orphans (image INTEGER PRIMARY KEY) STRICT",
    "CREATE TABLE pruned (image INTEGER PRIMARY KEY) STRICT",
    "CREATE INDEX files_by_image ON files (image) WHERE image IS NOT NULL",
    "CREATE INDEX files_by_time ON files (taken_at) WHERE taken_at IS NOT NULL",
    "CREATE INDEX images_by_time ON images (taken_at)",
    "CREATE INDEX images_by_decoding ON images (decoding)",
    """CREATE TRIGGER image_added AFTER INSERT ON images BEGIN
        UPDATE state SET images = images + 1;
        INSERT INTO orphans VALUES (NEW.id);
    END""",
    """CREATE TRIGGER image_pruned AFTER DELETE ON images BEGIN
        UPDATE state SET images = images - 1;
        DELETE FROM orphans WHERE image = OLD.id;
        DELETE FROM parts WHERE image = OLD.id;
        INSERT INTO pruned VALUES (OLD.id);
    END""",
    """CREATE TRIGGER file_added AFTER INSERT ON files WHEN NEW.image IS NOT NULL BEGIN
        DELETE FROM orphans WHERE image = NEW.image;
    END""",
    """CREATE TRIGGER file_changed AFTER UPDATE OF image ON files WHEN OLD.image IS NOT NEW.image BEGIN
        DELETE FROM orphans WHERE image = NEW.image;
        INSERT INTO orphans SELECT OLD.image
            WHERE OLD.image IS NOT NULL AND NOT EXISTS (SELECT 1 FROM files WHERE image = OLD.image);
    END""",
    """CREATE TRIGGER file_gone AFTER DELETE ON files WHEN OLD.image IS NOT NULL BEGIN
        INSERT INTO orphans SELECT OLD.image
            WHERE NOT EXISTS (SELECT 1 FROM files WHERE image = OLD.image);
    END""",
)

# The columns that `crc32` covers, in this order. For a file and a part it covers the hash of the image instead of the
# id. For `state` it does not cover `images`, which triggers change; a check compares `images` with the table.
SUMMED = {
    "fingerprint": "model, revision, weights_sha256, config_sha256, preprocessing, preprocessing_version, "
    "precision_family, dim, tokenizer_sha256",
    "state": "created_at, updated_at, generation, covered, vectors_sha256",
    "tuning": "lists, trained, effort, candidates, recall, texts, pictures",
    "keeping": "capacity, under, made_by",
    "store": "address, name, home, token, previous, arrangement",
    "queries": "vector",
    "roots": "path, scanned_at",
    "images": "hash, width, height, taken_at, decoding, vector",
    "parts": "hash, part, parts.vector",
    "files": "path, size, mtime_ns, inode, ctime_ns, files.taken_at, sidecars, metadata, files.decoding, hash, reason",
}
_SUMMED_3 = SUMMED | {
    "images": "hash, width, height, taken_at, vector",
    "files": "path, size, mtime_ns, hash, reason",
}
_SUMMED_2 = _SUMMED_3 | {"fingerprint": SUMMED["fingerprint"].removesuffix(", tokenizer_sha256")}
SUMMED_IN = {2: _SUMMED_2, 3: _SUMMED_3, 4: SUMMED, 5: SUMMED, FORMAT_VERSION: SUMMED}  # by format

_INTEGER, _REAL = struct.Struct("<cq").pack, struct.Struct("<cd").pack
_TO_BYTES: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"n",
    int: lambda value: _INTEGER(b"i", value),
    float: lambda value: _REAL(b"r", value),
    str: lambda value: b"t" + value.encode(),
    bytes: lambda value: b"b" + value,
}


def crc32_of(*values: object) -> int:
    """Return the checksum of a row; its values may have any type of SQLite. Upgrades call it in SQL."""
    return zlib.crc32(b"".join([_TO_BYTES[type(value)](value) for value in values]))


# Readers read the older formats as they are; the writer upgrades them, each by one version.
_OLD_FINGERPRINT = _SUMMED_2["fingerprint"]
_UPGRADE_2 = (
    "ALTER TABLE fingerprint RENAME TO old_fingerprint",
    SCHEMA[0],
    f"""INSERT INTO fingerprint SELECT one, {_OLD_FINGERPRINT}, NULL, crc32_of({_OLD_FINGERPRINT}, NULL)
        FROM old_fingerprint""",
    "DROP TABLE old_fingerprint",
)


def new_sum(table: str, old: str, new: str) -> str:
    """Return SQL for the sum of a row of `table` whose values change; it stays wrong if it was wrong before."""
    return f"crc32_of({new}) + ({table}.crc32 <> crc32_of({old}))"


def _only(*starts: str) -> tuple[str, ...]:
    return tuple(statement for statement in SCHEMA if statement.startswith(starts))


_CHANGED_IN_4 = (
    "CREATE TABLE images",
    "CREATE TABLE parts",
    "CREATE TABLE files",
    "CREATE TRIGGER image_pruned",
    "CREATE INDEX files_by_time",
    "CREATE INDEX images_by_decoding",
)
_FILE_4 = "path, size, mtime_ns, 0, 0, NULL, 0, 0, iif(reason IS NULL, NULL, 0)"  # of the columns that version 3 has
_UPGRADE_3: tuple[str | tuple[str, ...], ...] = (
    *(f"DROP TRIGGER {name}" for name in ("image_added", "image_pruned", "file_added", "file_changed", "file_gone")),
    "ALTER TABLE files RENAME TO old_files",
    "ALTER TABLE images RENAME TO old_images",
    *_only("CREATE TABLE images", "CREATE TABLE parts", "CREATE TABLE files"),
    # By parts, so that new rows use the space of old ones.
    (
        f"""INSERT INTO images SELECT id, hash, width, height, taken_at, 0, vector,
        {new_sum("old_images", _SUMMED_3["images"], "hash, width, height, taken_at, 0, vector")}
        FROM old_images ORDER BY id LIMIT 4096""",
        "DELETE FROM old_images WHERE id <= (SELECT max(id) FROM images)",
    ),
    f"""INSERT INTO files SELECT {_FILE_4}, image, reason,
        {new_sum("old_files", _SUMMED_3["files"], f"{_FILE_4}, hash, reason")}
        FROM old_files LEFT JOIN images ON id = image ORDER BY path""",
    "DROP TABLE old_files",
    "DELETE FROM sqlite_sequence WHERE name = 'images'",
    "UPDATE sqlite_sequence SET name = 'images' WHERE name = 'old_images'",
    "DROP TABLE old_images",
    *_only("CREATE INDEX", "CREATE TRIGGER"),
)
UPGRADES: dict[int, tuple[str | tuple[str, ...], ...]] = {
    2: _UPGRADE_2,
    3: _UPGRADE_3,
    4: _only("CREATE TABLE keeping"),
    5: _only("CREATE TABLE store"),
}


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Bring the tables of a manifest from this version to the next. The caller holds a transaction, without foreign
    keys. A tuple of statements is executed again until its last one changes nothing."""
    for step in UPGRADES[version]:
        if isinstance(step, str):
            db.execute(step)
        else:
            while [db.execute(statement).rowcount for statement in step][-1]:
                pass


_LAYOUT_5 = tuple(statement for statement in SCHEMA if not statement.startswith("CREATE TABLE store"))
_LAYOUT_4 = tuple(statement for statement in _LAYOUT_5 if not statement.startswith("CREATE TABLE keeping"))
_LAYOUT_3 = (
    *(statement for statement in _LAYOUT_4 if not statement.startswith(_CHANGED_IN_4)),
    """CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        taken_at INTEGER,
        vector BLOB NOT NULL,
        crc32 INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE files (
        path BLOB PRIMARY KEY,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        image INTEGER REFERENCES images (id),
        reason TEXT,
        crc32 INTEGER NOT NULL,
        CHECK ((image IS NULL) <> (reason IS NULL))
    ) STRICT, WITHOUT ROWID""",
    """CREATE TRIGGER image_pruned AFTER DELETE ON images BEGIN
        UPDATE state SET images = images - 1;
        DELETE FROM orphans WHERE image = OLD.id;
        INSERT INTO pruned VALUES (OLD.id);
    END""",
)
LAYOUTS = {
    FORMAT_VERSION: frozenset(SCHEMA),
    5: frozenset(_LAYOUT_5),
    4: frozenset(_LAYOUT_4),
    3: frozenset(_LAYOUT_3),
    2: frozenset([SCHEMA[0].replace("        tokenizer_sha256 TEXT,\n", ""), *_LAYOUT_3[1:]]),
}


def statements(db: sqlite3.Connection) -> set[str]:
    """Return the SQL statements that created the tables, indexes and triggers; `SCHEMA` if the manifest is sound."""
    rows = db.execute("SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {bytes(sql or b"").decode("utf-8", "replace") for (sql,) in rows}
