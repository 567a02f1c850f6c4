"""Places of an index by any of their names; and roots that are away: one rule that decides it, one message about it.

A folder without any file, at any depth, looks like a disk that is not mounted. The index keeps what it has of such a
folder, and a search passes over it. Hidden files do not count: the system leaves them where a disk was. The stubs of
iCloud do.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridgetower.index.catalog.reader import Catalog

from bridgetower.errors import UnknownPlaceError
from bridgetower.files.ignore import USUAL_RULES
from bridgetower.files.regular_files import named_by_stub
from bridgetower.files.walk import passes_over
from bridgetower.inputs import ResolvedPlace
from bridgetower.records import Place

KEPT = (
    "what the index has of it is kept: mount its disk; or, if it has moved, `bt index` its new place, which encodes "
    "nothing again; `bt forget` takes it out"
)

_MOST_NAMES = 10_000  # compared at most with a name that is not known


def known_place(path: Path, knows: Callable[[Path], bool]) -> Path | None:
    """Return the path under which an index `knows` a folder or file; None if it does not.

    That is its own path, else its real path, else one of these with composed (NFC) or decomposed (NFD) letters in some
    of its names. `knows` must be true of the folders above what it knows, too.
    """
    places = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    exact = next((place for place in places if knows(place)), None)
    return exact or next((known for place in places if (known := _respelled(place, knows))), None)


def known_places(given: Iterable[ResolvedPlace], catalog: "Catalog") -> tuple[Place, ...]:
    """Return each place as the index knows it, else as a glob. Raises UnknownPlaceError."""
    found: dict[Place, None] = {}
    for place, line in given:
        known: Place | None = line
        if place is not None and (known := known_place(place, catalog.knows) or line) is None:
            raise UnknownPlaceError(f"nothing in the index lies under {place}{suggestion(catalog, place)}")
        if known is not None:
            found[known] = None
    return tuple(found)


def _respelled(place: Path, knows: Callable[[Path], bool]) -> Path | None:
    """Return the first known path whose names are those of `place`, each as it is, in NFC or in NFD."""
    if str(place).isascii():
        return None
    found = [Path(place.anchor)]
    for name in place.parts[1:]:
        forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
        found = [longer for above in found for form in forms if knows(longer := above / form)]
    return next(iter(found), None)


def suggestion(catalog: "Catalog", path: Path) -> str:
    """Return a hint that names known paths similar to `path`, or the roots."""
    from difflib import get_close_matches

    folders = ((known_place(above, catalog.knows), above) for above in path.parents)
    folder, above = next(((known, above) for known, above in folders if known), (None, path))
    names = [] if folder is None else catalog.names_in(folder, _MOST_NAMES)
    wrong = path.name if folder is None else path.relative_to(above).parts[0]
    alike = [name for name in names if name.startswith(wrong)] or get_close_matches(wrong, names)
    near = [str(folder / name) for name in alike[:3]] if folder else []
    roots = [str(root) for root, _ in catalog.roots()]
    near += [root for root in roots if get_close_matches(path.name, [os.path.basename(root)]) and root not in near]
    if near:
        return f"; did you mean {' or '.join(near[:3])}?"
    return f"; its folders are {', '.join(roots[:3])}{' ...' if roots[3:] else ''}" if roots else "; it has no folders"


def is_away(root: Path) -> bool:
    """Return whether there is surely no file, of any kind but hidden, at or below a root. False on any other error."""
    folders = [os.fsencode(root)]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(b".") and named_by_stub(entry.name) is None:
                        continue
                    if not entry.is_dir(follow_symlinks=False):
                        return False
                    folders.append(entry.path)
    except NotADirectoryError:
        return not root.exists()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return True


def nothing_in(root: Path | str) -> str:
    """Return the message about a root that is away."""
    return f"nothing found in {root}, so {KEPT}"


def of_their_own(paths: Sequence[Path], known: Iterable[Path]) -> list[Path]:
    """Return those of `paths` that become roots: all but files that the walk of another root meets.

    The walk is by the usual rules, as the options of a run hold for that run only.
    """
    roots = {*paths, *known}

    def is_part(path: Path) -> bool:
        around = (folder for folder in path.parents if folder in roots)
        return path.is_file() and not all(passes_over(folder, path, USUAL_RULES, is_file=True) for folder in around)

    return [path for path in paths if not is_part(path)]
