"""Captions in one JSON document: `captions_*.json` of COCO, and `dataset_*.json` of Karpathy with its splits."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bridgetower.errors import InputError
from bridgetower.files import jsonl
from bridgetower.files.captions.rows import Row, row
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular

_COCO = '{"images": [{"id": 1, "file_name": "a.jpg"}, ...], "annotations": [{"image_id": 1, "caption": "text"}, ...]}'
_KARPATHY = '{"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "text"}, ...]}, ...]}'


def load(file: Path) -> Any:
    """Return the JSON document of a file. Raises InputError that names the line where it is none."""
    try:
        with open_regular(file) as opened:
            return json.loads(opened.read().decode("utf-8-sig"))
    except OSError as error:
        raise unreadable(file, error) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}, line {error.lineno}: not JSON from column {error.colno} on; it should be one document of COCO or "
            "Karpathy"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8; it should be one document of COCO or Karpathy") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: a number too long, or brackets too deep, to be read") from error


def read(file: Path, splits: Collection[str] | None) -> Iterator[Row]:
    """Yield the rows of a document, of Karpathy those of the `splits`. Raises InputError that names the entry."""
    document = load(file)
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise InputError(f'{file}: "images" is not a list; it should be {_COCO}, or {_KARPATHY}')
    if "annotations" in document:
        if splits is not None:
            raise InputError(f"{file}: a file of COCO has no splits, each is a file of its own; name none")
        return _coco(file, document)
    return _karpathy(file, document["images"], splits)


def _coco(file: Path, document: dict[str, Any]) -> Iterator[Row]:
    """Yield a row for each caption. An image without one is passed over, as in the files of COCO themselves."""
    names: dict[int, str] = {}
    place = "images"
    try:
        for number, image in enumerate(document["images"]):
            place = f"images[{number}]"
            names[jsonl.field(image, "id", int)] = jsonl.field(image, "file_name", str)
        place = "annotations"
        for number, annotation in enumerate(jsonl.field(document, "annotations", list)):
            place = f"annotations[{number}]"
            image = jsonl.field(annotation, "image_id", int)
            if image not in names:
                raise ValueError(f'"image_id" {image} is the "id" of no image')
            caption = jsonl.field(annotation, "caption", str)
            yield row(place, names[image], [caption], of=("file_name", "caption"))
    except ValueError as error:
        raise InputError(f"{file}, {place}: {error}; it should be {_COCO}") from error


def _karpathy(file: Path, images: list[Any], splits: Collection[str] | None) -> Iterator[Row]:
    """Yield a row for each picture of the splits, all with None. Raises InputError also where a split has none."""
    place = "images"
    met: set[str] = set()
    try:
        for number, image in enumerate(images):
            place = f"images[{number}]"
            sentences = jsonl.field(image, "sentences", list)
            image = {"split": "", "filepath": "", **image}  # both may be absent
            split, folder = jsonl.field(image, "split", str), jsonl.field(image, "filepath", str)
            met.add(split)
            if splits is None or split in splits:
                name = str(PurePosixPath(folder, jsonl.field(image, "filename", str)))
                if not sentences:
                    raise ValueError('"sentences" is an empty list')
                captions = [jsonl.field(sentence, "raw", str) for sentence in sentences]
                yield row(place, name, captions, of=("filename", "sentences"))
    except ValueError as error:
        raise InputError(f"{file}, {place}: {error}; it should be {_KARPATHY}") from error
    if splits is not None and (unknown := sorted(set(splits) - met)):
        known = ", ".join(sorted(met - {""})) or "not given"
        raise InputError(f"{file}: no picture is of the split {', '.join(unknown)}; its splits are {known}")
