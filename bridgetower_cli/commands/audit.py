"""`bt audit`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridgetower.errors import UsageError
from bridgetower.records import FITS, Skipped, Stamp
from bridgetower_cli import render
from bridgetower_cli.failures import SOME_SKIPPED
from bridgetower_cli.libraries import model as the_model
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    Device,
    Images,
    Json,
    Model,
    Precision,
    Quiet,
    Split,
    named_path,
    probability,
    settle,
)
from bridgetower_cli.terminal.hyperlinks import linked
from bridgetower_cli.terminal.tables import Column

if TYPE_CHECKING:
    from bridgetower import Audit, Audited

FALSE_CAPTIONS = 1
_COLUMNS = ("image", "place", "caption", "match", "word", "at", "suggestion", "suggested_match")
_STAMP = ("model", "weights", "precision", "preprocessing", "version")
_DIGITS = 16  # of the SHA-256 of the weights


def _worst(text: object) -> int | float:
    """ "20" -> 20 captions, "5%" -> the share 0.05. Raises UsageError."""
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?) *%", str(text).strip(), re.ASCII)
    worst = 0 if found is None else int(found[1]) if found[1] else float(found[2]) / 100
    if not worst or (isinstance(worst, float) and worst > 1):
        raise UsageError(f"{str(text)!r}: a number of captions or a percentage of them is wanted, as 20 or 5%")
    return worst


def audit(
    captions: Annotated[
        Path, typer.Argument(metavar="CAPTIONS", parser=named_path, help="JSON lines, CSV, TSV, or JSON of a data set.")
    ],
    below: Annotated[
        float,
        typer.Option(parser=probability, metavar="P", help="Show captions whose match is below this, 0 to 1."),
    ] = FITS,
    worst: Annotated[
        float | None,
        typer.Option(
            parser=_worst,
            metavar="N|N%",
            help="Show so many of the worst captions instead, or so many percent of all. --below then decides the exit "
            "code alone.",
        ),
    ] = None,
    images: Images = None,
    split: Split = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header line.")] = False,
    model: Model = None,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Find the captions that are false of their pictures.

    CAPTIONS is a file as for bt eval. Each caption gets the probability that it is true of its picture. The worst are
    shown, worst first, with the word that the picture supports least and the word that mends it.

    Exits with 1 if any caption is below --below, and with 3 if none is but some pictures could not be read.
    """
    from bridgetower import read_captions

    if json and csv:
        raise UsageError("--json and --csv: choose one of the two")
    settings = settle(model=model, device=device, precision=precision, needs_index=False)
    missing: list[Skipped] = []
    # May raise, so before a model is fetched.
    captioned = read_captions(captions, images=images, split=split, on_missing=missing.append)
    render.skipped(missing)
    judge = the_model(settings)
    with Meter("matching", "pictures") as meter:
        shown = 0

        def show(row: "Audited", total: int) -> None:
            nonlocal shown
            if json:
                render.json_line(_fields(row, judge.stamp))
            elif csv:
                render.csv_line(_fields(row, judge.stamp).values(), header=None if shown else _COLUMNS + _STAMP)
            shown += 1
            if (json or csv) and render.shows_live_tables():
                meter.close()  # a bar would stand among the rows of this terminal
            else:
                meter.update(shown, total, "explaining", "captions")

        # Looked up at each call: `update` takes more than the library gives.
        found = judge.audit(captioned, below=below, worst=worst, on_progress=lambda *at: meter.update(*at), on_row=show)
    if csv and not shown:
        render.csv_line((), header=_COLUMNS + _STAMP)
    elif shown and not json and not csv:
        _table(found.rows)
    render.skipped(found.skipped)
    _report(found, below, judge.stamp)
    if found.below:
        raise typer.Exit(FALSE_CAPTIONS)
    if missing or found.skipped:
        raise typer.Exit(SOME_SKIPPED)


def _fields(row: "Audited", stamp: Stamp) -> dict[str, Any]:
    """Return a row with what its figures depend on, so that a line tells it wherever it is kept."""
    return {**{name: getattr(row, name) for name in _COLUMNS}, **_stamped(stamp)}


def _stamped(stamp: Stamp) -> dict[str, str | None]:
    from bridgetower import __version__

    weights = None if stamp.weights_sha256 is None else stamp.weights_sha256[:_DIGITS]
    values = (stamp.model, weights, stamp.precision, stamp.preprocessing, __version__)
    return dict(zip(_STAMP, values, strict=True))


def _table(rows: "tuple[Audited, ...]") -> None:
    render.table(
        [
            Column("match", number=True),
            Column("picture", path=True),
            Column("caption"),
            Column("suggestion"),
            Column("match then", number=True),
        ],
        [
            [
                render.score(row.match),
                linked(render.short(row.image), row.image),
                _marked(row),
                render.UNKNOWN if row.suggestion is None else render.visible(row.suggestion),
                render.score(row.suggested_match),
            ]
            for row in rows
        ],
    )


def _marked(row: "Audited") -> str:
    """Return the caption with the word in brackets."""
    if row.word is None or row.at is None:
        return render.visible(row.caption)
    before, after = row.caption[: row.at], row.caption[row.at + len(row.word) :]
    return render.visible(f"{before}[{row.word}]{after}")


def _report(found: "Audit", below: float, stamp: Stamp) -> None:
    """Say how many captions were judged, by what, and with which result."""
    captions = render.counted(found.captions, "caption")
    if found.cut:
        render.say(f"note: {found.cut} of {captions} are longer than the model reads; their ends are left out")
    by = ", ".join(f"{name} {value}" for name, value in _stamped(stamp).items() if value is not None)
    pictures = render.counted(found.pictures, "picture")
    render.say(f"{captions} of {pictures}: {found.below} below {below:g} ({by})")
