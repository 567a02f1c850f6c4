"""`bt verify`."""

from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower.errors import StoreError
from bridgetower_cli import render
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Index, InLibrary, Json, Quiet, StorePasswordFile, settle

if TYPE_CHECKING:
    from bridgetower import Finding, Library, Repaired


def verify(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Make again what can be made again, restore a damaged database from its copy, and drop and name what "
            "is damaged, so that the next `bt index` reads it again.",
        ),
    ] = False,
    json: Json = False,
    index: Index = None,
    in_library: InLibrary = None,
    store_password_file: StorePasswordFile = None,
    quiet: Quiet = False,
) -> None:
    """Check that the index is as it was written, or mend it.

    Every picture, every file, and all that is derived from them is read.

    Prints each finding, one a line, and changes nothing. Exits with 5 if there is any; with --repair, if any is left.
    """
    with library(settle(index=index, library=in_library, store_password_file=store_password_file)) as pictures:
        with Meter("checking", "pictures") as meter:
            if repair:
                _repair(pictures, meter, json=json)
            else:
                _check(pictures, meter, json=json)
        summary, strays = pictures.summary(), pictures.strays()
    for path in strays:
        render.say(f"note: {render.short(path)} is not part of the index")
    holds = f"{render.counted(summary.images + summary.orphans, 'picture')}, {render.counted(summary.files, 'file')}"
    render.say(f"all is well: {holds}")


def _check(pictures: "Library", meter: Meter, *, json: bool) -> None:
    """Check; show each finding. Raises StoreError if there is any."""
    found = 0
    for finding in pictures.check(on_progress=meter.update):
        _show(finding, json=json)
        found += 1
    if found:
        raise StoreError(f"{pictures.directory}: {render.counted(found, 'finding')}: mend it with `bt verify --repair`")


def _repair(pictures: "Library", meter: Meter, *, json: bool) -> None:
    """Repair; show each finding and the repairs. Raises StoreError if any finding is left."""
    repaired = pictures.repair(on_progress=meter.update)
    for finding in repaired.findings:
        _show(finding, json=json)
    _report_repair(repaired)
    if repaired.left:
        left = repaired.left[0]
        raise StoreError(f"{pictures.directory}: could not be mended ({left.problem}): make room, then run it again")


def _show(finding: "Finding", *, json: bool) -> None:
    if json:
        render.json_line(
            {
                "part": finding.part,
                "problem": finding.problem,
                "path": finding.path,
                "image": finding.image,
                "derived": finding.derived,
            }
        )
        return
    about = "" if finding.path is None else f" ({render.visible(str(finding.path))})"
    derived = "; it can be made again" if finding.derived else ""
    render.line(f"{finding.part}: {finding.problem}{about}{derived}")


def _report_repair(repaired: "Repaired") -> None:
    restored = repaired.restored
    if restored is not None:
        kept = "" if restored.kept is None else f"; the damaged manifest is kept as {render.short(restored.kept)}"
        render.say(
            f"restored the copy of {render.moment(restored.updated_at)}: "
            f"{render.counted(restored.images, 'picture')}, {render.counted(restored.files, 'file')}{kept}"
        )
    if repaired.log is not None:
        lost = next(finding.problem for finding in repaired.findings if finding.part == "log")
        render.say(
            f"{lost}: it is kept as {render.short(repaired.log)}; `bt index` on its folders adds what is missing"
        )
    for path in repaired.dropped:
        render.say(f"dropped {render.short(path)}")
    for path in repaired.roots:
        render.say(f"dropped {render.short(path)} from the folders of the index: give it to `bt index` again")
    if repaired.dropped or restored is not None:
        render.say("`bt index` on its folders reads again what is missing now, and forgotten pictures that it meets")
    render.note(repaired.note)
