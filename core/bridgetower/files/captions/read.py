"""Read a captions file of any form."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from bridgetower.errors import InputError, UsageError
from bridgetower.files.captions import datasets, json_lines, tables
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.rows import Row
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular
from bridgetower.inputs import AnyPath, iterable, own_folder, path
from bridgetower.records import Skipped

_HEAD = 1 << 16  # bytes: the first line of a table, or of JSON lines; that of a document is longer or just a bracket


def read_captions(
    file: AnyPath,
    *,
    images: AnyPath | None = None,
    split: str | Collection[str] | None = None,
    on_missing: Callable[[Skipped], object] | None = None,
) -> list[Captioned]:
    """Read a captions file: JSON lines, CSV or TSV, or the JSON of COCO or Karpathy, told apart by their content.

    Paths in it are relative to the folder `images`, by default that of the file. `split` chooses one or several parts
    of a file of Karpathy, by default all. Several rows of one picture are merged into one item. With `on_missing`, a
    picture that is not there is left out, and `on_missing` gets it. Raises InputError that names the line or the entry,
    without `on_missing` also that of the first such picture.
    """
    file = path(file)
    folder = file.parent if images is None else own_folder(images)
    splits = None if split is None else _splits(split)
    # By real path: a picture listed twice would compete with itself.
    pictures: dict[str, tuple[Path, list[str], list[str]]] = {}
    named: dict[str, tuple[Path, list[str], list[str]]] = {}  # the same, by the names in the file
    missing: dict[Path, str] = {}  # the first place of each picture that is not there
    for row in _rows(file, splits):
        if row.image not in named:  # COCO has half a million rows of 120,000 pictures: each is looked for once
            image = folder / row.image
            real = os.path.realpath(image)
            named[row.image] = pictures.setdefault(real, (image, [], []))
            if not os.path.lexists(real):
                missing.setdefault(image, row.place)
        _, captions, places = named[row.image]
        captions += row.captions
        places += [row.place] * len(row.captions)
    if not pictures:
        raise InputError(f"{file}: no captions in it; `bt eval --help` shows its forms")
    for image, place in missing.items():
        if on_missing is None:
            others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                f"{file}, {place}: {image}: no such file{others}; correct the path, give the folder of the pictures "
                "with --images, or leave out what is missing with --skip-missing"
            )
        on_missing(Skipped(image, f"no such file, in {place} of {file.name}"))
    there = [Captioned(*item) for item in pictures.values() if item[0] not in missing]
    if not there:
        raise InputError(
            f"{file}: none of its pictures is there; paths are relative to {folder}, --images names another"
        )
    return there


def _splits(split: str | Collection[str]) -> frozenset[str]:
    found: list[object] = [split] if isinstance(split, str) else list(iterable(split, "split"))
    names = frozenset(one for one in found if isinstance(one, str) and one)
    if not names or len(names) < len(set(found)):
        raise UsageError("split names parts of a file, such as train or test: give at least one, or leave it out")
    return names


def _rows(file: Path, splits: frozenset[str] | None) -> Iterator[Row]:
    try:
        with open_regular(file) as opened:
            head = opened.read(_HEAD)
    except OSError as error:
        raise unreadable(file, error) from error
    if b"\0" in head:
        raise InputError(f"{file}: no captions file: it is no text in UTF-8; `bt eval --help` shows its forms")
    begin = head.decode("utf-8-sig", "replace").lstrip()
    first = re.split("[\r\n]", begin, maxsplit=1)[0]
    if _begins_document(first, begin):
        return datasets.read(file, splits)
    if splits is not None:
        raise InputError(f"{file}: only a file of Karpathy (dataset_*.json) has splits; name none")
    if not first.startswith(("{", "[")):
        if (delimiter := tables.delimiter_of(first)) is not None:
            return tables.read(file, delimiter)
        tables.require_columns(file, first)
    return json_lines.read(file)


def _begins_document(first: str, begin: str) -> bool:
    """Whether a file with this first line, and this beginning, is a document of a data set, and not JSON lines."""
    if not first.startswith("{"):
        return False
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):  # cut off, over several lines, or wrong
        return first.strip() == "{" or '"images"' in begin or '"annotations"' in begin
    return isinstance(found.get("images"), list)
