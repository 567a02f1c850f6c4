"""Check the arguments of the public interface, and convert them for the stages. All raise UsageError."""

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import getattr_static
from pathlib import Path
from reprlib import Repr
from typing import NamedTuple, TypeVar

from bridgetower.errors import UsageError
from bridgetower.records import DEMO, LARGEST, MOST_PIXELS

AnyPath = str | os.PathLike[str]

MASK = "<mask>"
_EVERY = LARGEST // 2  # more hits than any index has; the sum of two is still a number for `islice`
_MOST_PLACES = 100  # each is a condition of an SQL query

_T = TypeVar("_T")
_Told = TypeVar("_Told", bound=Callable[..., object])


def short(value: object) -> str:
    """Return the repr of a value on one line, cut to 200 characters."""
    shortened = Repr()
    shortened.maxstring, shortened.maxother = 100, 100
    return f"{' '.join(shortened.repr(value).split()):.200}"


def spaced(text: str) -> str:
    """Return a text with single spaces between its words and none around them; tabs and no-break spaces are spaces."""
    if not isinstance(text, str):
        raise UsageError(f"{short(text)}: a text is wanted")
    return " ".join(text.split())


def normalised(text: str) -> str:
    """Return a text of at least one word, spaced, for the model.

    The tokenizer keeps every blank, and a blank too many changes a probability, which nobody intends.
    """
    if not (words := spaced(text)):
        raise UsageError("the text is empty; give at least one word")
    return words


def masked(text: str) -> str:
    """Return a normalised text; raise UsageError if it has no `<mask>`."""
    text = normalised(text)
    if MASK not in text:
        raise UsageError(
            f'there is no {MASK} in the text: write it where a word is wanted, as in "a {MASK} looking out"'
        )
    return text


def list_of_texts(texts: Iterable[str]) -> list[str]:
    """Return each text normalised; refuse a single text, which would be a list of letters."""
    if isinstance(texts, str):
        raise UsageError(f"a list of texts is wanted, not the text {short(texts)}")
    return [normalised(text) for text in iterable(texts, "texts")]


def path(value: object) -> Path:
    """Return a path; refuse one that no file can have. "~" is a name like any other, as for `open`."""
    name: object = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(name, str):
        raise UsageError(f"{short(value)}: a path is wanted")
    if not name:
        raise UsageError('an empty path names nothing; the current folder is "."')
    if "\0" in name:
        raise UsageError(f"{short(name)}: no path has a NUL character in it")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise UsageError(f"{short(name)}: the file system can have no such name") from error
    return Path(name)


def lasting(value: object) -> Path:
    """Return an absolute path, to be opened later, when another folder may be the current one."""
    given = path(value)
    try:
        return given.absolute()  # links on the way are followed when it is opened
    except FileNotFoundError as error:
        raise UsageError(f"{given}: the current folder is gone: change into one that is there") from error


def own_folder(value: object) -> Path:
    """Return the absolute path of a folder in which a library keeps files; "~" is a home."""
    path(value)
    name = os.path.expanduser(os.fspath(value))  # type: ignore[call-overload]  # `path` took it
    if name.startswith("~"):
        raise UsageError(f"{short(value)}: the home folder that is meant is not known; write the path out")
    return lasting(name)


def model_name(value: object) -> str:
    """Return the name of a model: a repository, "demo", or the absolute path of a folder that exists; "~" is a home."""
    path(value)
    name: str = os.fspath(value)  # type: ignore[call-overload]  # `path` took it; a Path would lose "./"
    folder = os.path.expanduser(name)
    return str(lasting(folder)) if name != DEMO and os.path.isdir(folder) else name


def list_of_paths(paths: Iterable[AnyPath]) -> list[Path]:
    """Return each as a path; refuse a single path."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise UsageError(f"a list of paths is wanted, not the path {short(os.fspath(paths))}")
    return [path(one) for one in iterable(paths, "paths")]


def sha256(value: object) -> bytes:
    """Return the bytes of a SHA-256 in 64 hexadecimal digits. Raises UsageError."""
    if not (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        raise UsageError(f"{short(value)}: a SHA-256 is wanted, in 64 digits of 0 to 9 and a to f")
    return bytes.fromhex(value)


class ResolvedPlace(NamedTuple):
    """A folder, file or glob of an index as another process has resolved it, in its own current folder."""

    path: Path | None  # absolute; None if it is a glob only, for which the file system is not asked
    glob: str | None  # as `files.patterns.glob` writes it; None if it is no glob


def places(name: str, value: object, glob: Callable[[str], str | None]) -> list[ResolvedPlace]:
    """Return one or several folders, files or globs, resolved; `name` is the argument, `glob` that of `files.patterns`.

    Raises UsageError.
    """
    single = isinstance(value, str | bytes | os.PathLike | ResolvedPlace) or not isinstance(value, Iterable)
    found = [
        one if isinstance(one, ResolvedPlace) else ResolvedPlace(lasting(one), glob(os.fspath(one)))
        for one in ([value] if single else value)  # type: ignore[attr-defined]
    ]
    if len(found) > _MOST_PLACES:
        raise UsageError(f"{name} names {len(found)} places: at most {_MOST_PLACES} can be given, or a pattern")
    return found


def paths_to_index(paths: Iterable[AnyPath]) -> list[Path]:
    """Return each as a path, at least one: without any, an empty index would be made."""
    if not (found := list_of_paths(paths)):
        raise UsageError("nothing to index: give at least one folder or file")
    return found


def list_of_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns unchanged; refuse a single pattern."""
    if isinstance(patterns, str):
        raise UsageError(f"a list of patterns is wanted, not the pattern {short(patterns)}")
    found = tuple(iterable(patterns, "patterns"))
    for pattern in found:
        if not isinstance(pattern, str):
            raise UsageError(f"{short(pattern)}: a pattern is wanted, as in .gitignore")
    return found


def list_of_depths(depths: Iterable[int]) -> list[int]:
    """Return each depth once, in order; each is at least 1."""
    return list(dict.fromkeys(whole("depth", depth, least=1) for depth in iterable(depths, "depths")))


def path_map(moves: Mapping[str, AnyPath] | None) -> dict[str, Path]:
    """Return the mapping from old beginnings of paths to new ones."""
    if moves is None:
        return {}
    if not isinstance(moves, Mapping):
        raise UsageError(f"{short(moves)}: a mapping of old paths to new ones is wanted")
    return {str(path(old)): path(new) for old, new in moves.items()}


def iterable(values: Iterable[_T], kind: str) -> Iterable[_T]:
    """Return `values`; raise UsageError that names `kind` if they are not iterable."""
    if not isinstance(values, Iterable):
        raise UsageError(f"a list of {kind} is wanted, not {short(values)}")
    return values


def listener(tell: _Told) -> _Told:
    """Return a callback for progress or notes; refuse what cannot be called."""
    if not callable(tell):
        raise UsageError(f"{short(tell)}: a function is wanted, to be told what goes on; leave it out for none")
    return tell


def one_of(known: Sequence[str], name: str, value: object) -> str:
    """Return a word that is one of the known ones."""
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{name} {short(value)} is unknown: choose one of {', '.join(known)}")
    return value


def whole(name: str, value: object, *, least: int) -> int:
    """Return a whole number of any type but bool, at least `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"{name} {short(value)}: a whole number is wanted") from error
    if found < least:
        raise UsageError(f"{name} {found}: at least {least} is wanted")
    return found


def whole_or_none(name: str, value: object) -> int | None:
    """Return None, or a whole number of at least 0 that an index can hold."""
    found = None if value is None else whole(name, value, least=0)
    if found is not None and found > LARGEST:
        raise UsageError(f"{name} {short(value)}: at most {LARGEST}")
    return found


def room_to_keep(capacity: object, under: AnyPath | None) -> tuple[int | None, Path | None]:
    """Return bytes for features, and the place of their pictures, absolute."""
    return whole_or_none("keep_features", capacity), None if under is None else lasting(under)


def flag(name: str, value: object) -> bool:
    """Return a value that is True or False. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is True or False, not {short(value)}")
    return value


def number(name: str, value: object, *, least: float, most: float = math.inf) -> float:
    """Return a real number of any type but bool, from `least` to `most`."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name} {short(value)}: a number is wanted") from error
    if not least <= found <= most:
        limits = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"{name} {found:g}: a number {limits} is wanted")
    return found


def list_of_weights(weights: Iterable[float], texts: int, pictures: int) -> tuple[float, ...]:
    """Return a positive number for each text and then for each picture."""
    if isinstance(weights, str | bytes):
        raise UsageError(f"a list of weights is wanted, not {short(weights)}")
    found = tuple(number("weight", weight, least=0) for weight in iterable(weights, "weights"))
    for weight in found:
        if not 0 < weight < math.inf:
            raise UsageError(f"weight {weight:g}: a positive number is wanted")
    if len(found) != texts + pictures:
        raise UsageError(
            f"weights: {len(found)} given, {texts + pictures} wanted: for each text ({texts}), then for each picture "
            f"({pictures})"
        )
    return found


def count_of(top: object) -> int:
    """How many to give at most."""
    return min(whole("top", top, least=1), _EVERY)


def offset_of(offset: object) -> int:
    """How many to skip."""
    return min(whole("offset", offset, least=0), _EVERY)


def depth_of(depth: object, *, least: int = 0) -> int | None:
    """How many to verify; None where that is left to the judge."""
    return None if depth is None else whole("depth", depth, least=least)


def least_match(min_match: object) -> float | None:
    """A probability; None for any."""
    return None if min_match is None else number("min_match", min_match, least=0, most=1)


def worst_of(worst: object) -> int | float | None:
    """How many of the worst, as an int, or which share of all, as a float in (0, 1]; None for all below a threshold."""
    if isinstance(worst, float):
        if not 0 < worst <= 1:
            raise UsageError(f"worst {worst:g}: a share is above 0 and at most 1; a number of captions is an int")
        return worst
    return None if worst is None else whole("worst", worst, least=1)


def least_similarity(min_similarity: object) -> float | None:
    """A cosine; None for any."""
    return None if min_similarity is None else number("min_similarity", min_similarity, least=-1, most=1)


def pixel_limit(max_pixels: object) -> int | None:
    """How many pixels a picture may have; None for the usual limit."""
    if max_pixels is None:
        return None
    found = whole("max_pixels", max_pixels, least=1)
    if found > MOST_PIXELS:
        raise UsageError(f"max_pixels {found}: at most {MOST_PIXELS} is wanted")
    return found


def missing_members(part: object, role: type) -> list[str]:
    """The members of a protocol that an object does not have. Properties that are there are not asked."""
    members = [name for name in vars(role) if not name.startswith("_")]
    return [name for name in members if getattr_static(part, name, None) is None and not hasattr(part, name)]


def require_part(part: object, role: type) -> None:
    """Raise UsageError unless an object has all members of the protocol `role`."""
    if isinstance(part, type):
        raise UsageError(f"{part.__name__} is a class: give an object of it")
    if missing := missing_members(part, role):
        raise UsageError(f"{short(part)} is no {role.__name__}: it lacks {', '.join(missing)}")
