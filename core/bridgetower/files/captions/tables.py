"""Tables of captions: CSV or TSV, whose first line names the columns; other columns than the two are passed over."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from bridgetower.errors import InputError
from bridgetower.files.captions.rows import CAPTION_NAMES, IMAGE_NAMES, Row, row
from bridgetower.files.os_errors import unreadable
from bridgetower.files.regular_files import open_regular

_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon"}
_DELIMITERS = tuple(_NAMES)
_COLUMNS = " or ".join(f'"{image}"' for image in IMAGE_NAMES), " or ".join(f'"{text}"' for text in CAPTION_NAMES)


def delimiter_of(head: str) -> str | None:
    """Return what separates the columns of a table, by its first line; None if that names no picture and text."""
    for delimiter in _DELIMITERS:
        names = _names(next(csv.reader([head], delimiter=delimiter), []))
        if _column(names, IMAGE_NAMES) is not None and _column(names, CAPTION_NAMES) is not None:
            return delimiter
    return None


def require_columns(file: Path, head: str) -> None:
    """Raise InputError where the first line is that of a table, whose columns `delimiter_of` does not know."""
    if any(delimiter in head for delimiter in _DELIMITERS):
        raise InputError(
            f"{file}, line 1: names no column for the picture, or none for its text; the first line of a table should "
            f"have {_COLUMNS[0]}, and {_COLUMNS[1]}"
        )


def read(file: Path, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a table in UTF-8. Raises InputError that names the line."""
    started = 1  # the line on which a row begins: a cell may hold line feeds
    try:
        with open_regular(file) as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as text:
            rows = csv.reader(text, delimiter=delimiter, strict=True)
            names = _names(next((cells for cells in rows if any(map(str.strip, cells))), []))
            image, caption = _column(names, IMAGE_NAMES), _column(names, CAPTION_NAMES)
            if image is None or caption is None:  # spaces or quotes before the first name
                raise ValueError("the first line does not name the columns")
            of = names[image], names[caption]
            started = rows.line_num + 1
            for cells in rows:
                if any(cells):
                    if len(cells) != len(names):
                        more = f": put a text with a {_NAMES[delimiter]} in quotes" if len(cells) > len(names) else ""
                        raise ValueError(f"{len(cells)} cells, where the first line names {len(names)}{more}")
                    yield row(f"line {started}", cells[image], [cells[caption]], of=of)
                started = rows.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(f"{file}, line {started} or later: not UTF-8; save the table as UTF-8") from error
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{file}, line {started}: {error}; a row should have the columns of the first line, among them "
            f"{_COLUMNS[0]}, and {_COLUMNS[1]}"
        ) from error
    except OSError as error:
        raise unreadable(file, error) from error


def _names(cells: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _column(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)
