"""`bt match`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bridgetower.records import PairScore
from bridgetower_cli import render
from bridgetower_cli.libraries import ask_model
from bridgetower_cli.progress import Meter
from bridgetower_cli.render import Column
from bridgetower_cli.settings import Device, Json, Model, NoServer, Precision, Quiet, Verbose, named_path, settle


def match(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", parser=named_path, help="Picture files.")],
    text: Annotated[
        list[str], typer.Option(metavar="TEXT", help="A text to score them with; may be given several times.")
    ],
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
    finds candidates. A model that lacks the head for one of the two leaves it out.
    """
    settings = settle(model=model, device=device, precision=precision, no_server=no_server, verbose=verbose)
    paths = [Path(os.path.abspath(image)) for image in images]
    with Meter("matching", "pictures") as meter:
        scores = ask_model(settings, lambda asked: asked.match(paths, text, on_progress=meter.update))
    if json:
        for pair in scores:
            render.json_line(_fields(pair))
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
