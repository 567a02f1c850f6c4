"""`bt duplicates`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridgetower.errors import UnknownPlaceError, UsageError
from bridgetower_cli import render
from bridgetower_cli.failures import no_match
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.render import counted
from bridgetower_cli.settings import Index, InLibrary, Json, Quiet, StorePasswordFile, cosine, named_place, settle
from bridgetower_cli.terminal.tables import Column

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridgetower import Duplicate, DuplicateGroup, Duplicates


def duplicates(
    equal: Annotated[bool, typer.Option("--equal", help="Only equal files: the same bytes.")] = False,
    similar: Annotated[
        bool, typer.Option("--similar", help="Only pictures that differ in their bytes and show the same view.")
    ] = False,
    similarity: Annotated[
        float | None,
        typer.Option(
            parser=cosine,
            metavar="S",
            help="Look at pictures whose vectors have at least this similarity, -1 to 1: higher is faster, and misses "
            "more that was cropped. [default: 0.85]",
        ),
    ] = None,
    under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            parser=named_place,
            help="Only files in this folder, or that fit a pattern such as '*/2019/*'. May be given several times.",
        ),
    ] = None,
    not_under: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", parser=named_place, help="No files from there; given as for --under."),
    ] = None,
    json: Json = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print the bare paths of what need not be kept, one a line.")
    ] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="The same, each path ended by a NUL byte.")] = False,
    store_password_file: StorePasswordFile = None,
    index: Index = None,
    in_library: InLibrary = None,
    quiet: Quiet = False,
) -> None:
    """Find duplicates in the index: equal files, and pictures encoded again, scaled or cropped.

    Each group says which one to keep: camera raw before other files, then the most pixels, the most bytes, the oldest
    date, the shortest path. Raw and JPEG of one shot belong together. Nothing is removed.

    Exits with 1 if there are none.
    """
    if json and (paths or null):
        raise UsageError("--json and bare paths are two formats: choose one")
    if equal and not similar and similarity is not None:
        raise UsageError("--equal compares bytes, --similarity is for similar pictures: choose one")
    settings = settle(index=index, library=in_library, store_password_file=store_password_file)
    with library(settings) as pictures, Meter("comparing", "pictures") as meter:
        try:
            found = pictures.duplicates(
                similarity=similarity,
                under=under,
                not_under=not_under or (),
                equal=equal or not similar,
                similar=similar or not equal,
                on_progress=meter.update,
                on_look=lambda done, total: meter.update(done, total, "looking at"),
            )
        except UnknownPlaceError as error:
            raise no_match(str(error)) from error
    _say_what_was_left_out(found)
    if json:
        for group in found:
            render.json_line(_fields(group))
    elif paths or null:
        render.paths(found.superfluous(), end=b"\0" if null else b"\n")
    elif found.groups:
        render.table(*_laid_out(found))
    if not found.groups:
        empty = not (found.pictures or found.gone or found.changed or found.in_cloud or found.barred)
        where = render.empty_index(settings.index) if empty and not (under or not_under) else None
        raise no_match(where or f"no duplicates among {counted(found.pictures, 'picture')}")
    render.say("; ".join(_counts(found)))


def _say_what_was_left_out(found: "Duplicates") -> None:
    render.skipped(found.skipped)
    render.passed_over(found.gone, found.barred, ())
    if found.changed:
        render.say(
            f"note: left out {counted(found.changed, 'file')} that changed since the last `bt index`; run it again on "
            "their folders"
        )
    render.in_cloud(found.in_cloud)


def _counts(found: "Duplicates") -> "Iterable[str]":
    for kind, members in (("equal", "file"), ("similar", "picture")):
        others = [other for group in found if group.kind == kind for other in group.others]
        if others:
            groups = counted(sum(group.kind == kind for group in found), f"{kind} group")
            yield f"{groups}: {counted(len(others), members)} more than needed, {_size(others)}"


def _size(others: "Iterable[Duplicate]") -> str:
    return render.size(sum(other.size for other in others))


def _fields(group: "DuplicateGroup") -> dict[str, Any]:
    return {
        "kind": group.kind.value,
        "keep": _member_fields(group.keep),
        "others": [{"similarity": other.similarity, **_member_fields(other)} for other in group.others],
    }


def _member_fields(member: "Duplicate") -> dict[str, Any]:
    return {
        "path": member.path,
        "size": member.size,
        "width": member.width,
        "height": member.height,
        "taken_at": None if member.taken_at is None else member.taken_at.isoformat(),
        "hash": member.hash,
        "paths": member.paths,
    }


def _laid_out(found: "Duplicates") -> tuple[list[Column], list[list[str]]]:
    """Return a table in which each group begins with the one to keep."""
    columns = [Column("")]
    columns += [Column(name, number=True) for name in ("similarity", "pixels", "size")]
    columns += [Column("taken"), Column("picture", path=True)]
    rows = []
    for group in found:
        rows.append(["keep", "", *_row(group.keep)])
        rows += [[group.kind.value, render.score(other.similarity), *_row(other)] for other in group.others]
    return columns, rows


def _row(member: "Duplicate") -> list[str]:
    pixels, size = f"{member.width} x {member.height}", render.size(member.size)
    taken = render.UNKNOWN if member.taken_at is None else member.taken_at.isoformat(" ", "minutes")
    more = len(member.paths) - 1
    return [pixels, size, taken, f"{render.short(member.path)} (+{more})" if more else render.short(member.path)]
