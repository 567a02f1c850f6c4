"""`bt match`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.errors import UsageError
from bridgetower.records import PairScore
from bridgetower_cli import render
from bridgetower_cli.asking.lines import texts_in
from bridgetower_cli.libraries import ask_model
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Device, Json, Model, NoServer, Precision, Quiet, Verbose, named_path, settle, whole
from bridgetower_cli.terminal.tables import Column


def match(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", parser=named_path, help="Picture files.")],
    text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text to score them with; may be given several times.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=named_path,
            help='More texts, one a line ("-" for stdin): plain, or JSON with "text".',
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            parser=whole(5),
            metavar="N",
            help="Only the best N texts of each picture, best first. [default: all, as they are given]",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            parser=whole(20),
            metavar="N",
            help="With --top: match only the N texts that are most similar to a picture. [default: 20, on a GPU 100]",
        ),
    ] = None,
    json: Json = False,
    model: Model = None,
    device: Device = None,
    precision: Precision = None,
    no_server: NoServer = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score every picture with every text.

    "match" is the probability that the text describes the picture; "similarity" is the cosine by which an index
    finds candidates. A model that lacks the head for one of the two leaves it out. With --top, similarity chooses the
    texts of each picture that are matched, and the others are left out.
    """
    from bridgetower.files.content import unreachable
    from bridgetower.inputs import list_of_texts

    wanted = [*(text or ()), *(texts_in(texts) if texts is not None else ())]
    if not wanted:
        raise UsageError("--text is missing: `bt match --help` shows how it is given; --texts FILE reads many")
    if depth is not None and top is None:
        raise UsageError("--depth is for the best texts of each picture: give --top, too")
    settings = settle(
        model=model,
        device=device,
        precision=precision,
        no_server=no_server,
        verbose=verbose,
        needs_index=False,
    )
    paths = [Path(os.path.abspath(image)) for image in images]
    list_of_texts(wanted)  # may raise, as may the next, so before a model is fetched
    for error in unreachable(paths):
        raise error
    with Meter("matching", "pictures") as meter:
        scores = ask_model(
            settings, lambda asked: asked.match(paths, wanted, top=top, depth=depth, on_progress=meter.update)
        )
    if json:
        texts_of_each = len(scores) // len(paths)
        for place, pair in enumerate(scores):
            render.json_line(({} if top is None else {"rank": place % texts_of_each + 1}) | _fields(pair))
    else:
        render.table(
            [
                Column("match", number=True),
                Column("similarity", number=True),
                Column("picture", path=True),
                Column("text"),
            ],
            [
                [render.score(p.match), render.score(p.similarity), render.short(p.image), render.visible(p.text)]
                for p in scores
            ],
        )


def _fields(pair: PairScore) -> dict[str, object]:
    return {
        "image": pair.image,
        "text": pair.text,
        "match": pair.match,
        "itm_logits": pair.itm_logits,
        "similarity": pair.similarity,
    }
