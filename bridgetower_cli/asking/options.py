"""Options of `bt search`."""

from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import UsageError
from bridgetower_cli.settings import a_text, completing, cosine, duration, named_path, named_place, one_of, whole

_SORTS = ("match", "date", "path")


def weights_of(text: str) -> tuple[float, ...]:
    """ "2,1,0.5" -> numbers. Raises UsageError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r}: weights are positive numbers with commas between them, as 2,1,0.5") from error


Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT",
        parser=a_text,
        help="What the pictures should show, in quotes. May be given several times: each must be true.",
    ),
]
Not = Annotated[
    list[str] | None,
    typer.Option(
        "--not",
        metavar="TEXT",
        parser=a_text,
        help="A text that must not be true of them, in quotes; verified, too. May be given several times.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="W,W...",
        help="How much each TEXT, and then each --image, counts in recall: 2,1,0.5. [default: all alike]",
    ),
]
KeepSelf = Annotated[bool, typer.Option("--self", help="Keep the pictures of --image among the results.")]
Offset = Annotated[
    int, typer.Option(parser=whole(10, least=0), metavar="N", help="Skip this many results; ranks go on after them.")
]
Unique = Annotated[
    bool,
    typer.Option(
        "--unique", help="Show pictures of the same view (copies, encoded again, scaled, cropped) as one row."
    ),
]
Sort = Annotated[
    str,
    typer.Option(
        metavar="|".join(_SORTS),
        parser=one_of(_SORTS),
        autocompletion=completing(_SORTS),
        help="How to order the results that are shown; by date the newest come first.",
    ),
]
TextsFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=named_path,
        help='Ask many queries, one a line ("-" for stdin): a text, or JSON with "text", "image", "top", "min_match", '
        '"id". Prints JSON lines, query by query.',
    ),
]
Interactive = Annotated[
    bool,
    typer.Option("--interactive", "-i", help="Ask again and again on a terminal, with the models loaded once."),
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        parser=named_path,
        help="Search for pictures like this one; TEXT may refine it. May be given several times: all count alike.",
    ),
]
QueryVector = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=named_path,
        help='Recall by this vector, an npy file of the kind that the index holds ("-" for stdin); TEXT then '
        "only verifies.",
    ),
]
Under = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        parser=named_place,
        help="Only pictures in this folder, this file, or what fits a pattern such as '*/2019/*'. May be given "
        "several times.",
    ),
]
NotUnder = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", parser=named_place, help="No pictures from there; given as for --under."),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        help="Only pictures taken at this time or later, or whose file is from then if they do not say: "
        '"2024", "2024-05", "2024-05-17", "2024-05-17T18:30", "yesterday", "last week", "3 days ago".',
    ),
]
Before = Annotated[str | None, typer.Option(metavar="DATE", help="Only pictures taken before this time.")]
Taken = Annotated[
    str | None,
    typer.Option(
        metavar="DATES",
        help='Only pictures taken in this time: "2019", "last week", or "2024-05..2024-08" with both months in it.',
    ),
]
SearchTop = Annotated[
    int | None,
    typer.Option(parser=whole(10), metavar="N", help="Show at most this many. [env: BT_TOP; default: 10]"),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Compare the vectors of all pictures, also in an index so large that a search of it misses some.",
    ),
]
NoRerank = Annotated[bool, typer.Option("--no-rerank", help="Verify nothing: faster, ordered by similarity alone.")]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="TIME",
        parser=duration,
        help='Verify, the best candidates first, until this time is up: "2s", "500ms".',
    ),
]
MinSimilarity = Annotated[
    float | None,
    typer.Option(
        parser=cosine,
        metavar="S",
        help="Without TEXT: keep only pictures with at least this similarity, -1 to 1. It has no natural cut-off.",
    ),
]
Paths = Annotated[bool, typer.Option("--paths", help="Print bare paths, one a line.")]
Null = Annotated[bool, typer.Option("--null", "-0", help="Print bare paths, each ended by a NUL byte.")]
