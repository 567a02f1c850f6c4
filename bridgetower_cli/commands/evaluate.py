"""`bt eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower.errors import UsageError
from bridgetower.records import DEFAULT_DEPTH, EngineChoice, Skipped
from bridgetower_cli import render
from bridgetower_cli.libraries import model as the_model
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    Device,
    Engine,
    Images,
    Json,
    Model,
    Precision,
    Quiet,
    SharedPaths,
    Split,
    Workers,
    completing,
    named_path,
    settle,
    whole,
)
from bridgetower_cli.terminal.tables import Column

ON_OFF = ("on", "off")

if TYPE_CHECKING:
    from bridgetower import Evaluation


def evaluate(
    captions: Annotated[
        Path, typer.Argument(metavar="CAPTIONS", parser=named_path, help="JSON lines, CSV, TSV, or JSON of a data set.")
    ],
    depth: Annotated[
        list[int] | None,
        typer.Option(
            parser=whole(20),
            metavar="N",
            help=f"Candidates to verify; may be given several times. [default: {DEFAULT_DEPTH}]",
        ),
    ] = None,
    credit_same: Annotated[
        str,
        typer.Option(
            metavar="on|off",
            autocompletion=completing(ON_OFF),
            help="Whether a caption that stands word for word at several pictures is right for each of them.",
        ),
    ] = "on",
    images: Images = None,
    split: Split = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out pictures that are not there, and name them.")
    ] = False,
    json: Json = False,
    model: Model = None,
    engine: Engine = "local",
    workers: Workers = None,
    shared_paths: SharedPaths = False,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Measure recall@k on a file of captions.

    The file is JSON lines such as {"image": "cat.jpg", "captions": ["a cat", ...]}, a CSV or TSV with the columns
    image and caption (or filepath and title), captions_*.json of COCO, or dataset_*.json of Karpathy; its content
    tells which. Several rows for one picture count as one. A caption that stands word for word at several pictures is
    right for each of them. Prints how many of the queries, in percent, find their own among the first 1, 5 and 10
    results (IR: text to picture, TR: picture to text), by similarity alone and for each depth of verification. A model
    without matching head is measured by similarity alone.
    """
    from bridgetower import read_captions

    if credit_same not in ON_OFF:
        raise UsageError(f"{credit_same!r}: --credit-same is on or off")
    settings = settle(model=model, device=device, precision=precision, needs_index=False)
    choice = EngineChoice(engine, workers, shared_paths)
    missing: list[Skipped] = []
    with Meter("encoding", "pictures") as meter:
        # may raise, so before a model is fetched
        captioned = read_captions(
            captions, images=images, split=split, on_missing=missing.append if skip_missing else None
        )
        render.skipped(missing)
        # looked up at each call: the second pass has another `meter`
        measured = the_model(settings, engine=choice).evaluate(
            captioned, depths=depth, credit_same=credit_same == "on", on_progress=lambda *at: meter.update(*at)
        )
        results = [next(measured)]
    with Meter("verifying", "pictures") as meter:
        results += measured
    _report(results[0])
    if json:
        rule = {"credit_same": results[0].credit_same, "same_texts": results[0].same, "cut_texts": results[0].cut}
        for result in results:
            render.json_line({"method": result.method, "depth": result.depth, **_scores(result), **rule})
    else:
        names = [name.upper() if "@" in name else name for name in _scores(results[0])]
        render.table(
            [Column("method"), Column("depth", number=True), *(Column(name, number=True) for name in names)],
            [[r.method, str(r.depth or render.UNKNOWN), *(f"{s:.1f}" for s in _scores(r).values())] for r in results],
        )


def _report(result: "Evaluation") -> None:
    """Say what was measured, and by which rule."""
    texts = render.counted(result.texts, "text")
    if result.cut:
        render.say(f"note: {result.cut} of {texts} are longer than the model reads; their ends are left out")
    rule = f"--credit-same {'on' if result.credit_same else 'off'}"
    render.say(
        f"{render.counted(result.pictures, 'picture')}, {texts}; texts at several pictures ({result.same}) are right "
        f"for {'each' if result.credit_same else 'their own only'} ({rule})"
    )


def _scores(result: "Evaluation") -> dict[str, float]:
    """Return the recalls in percent, by their names."""
    ir = dict(zip(("ir@1", "ir@5", "ir@10"), result.ir, strict=True))
    tr = dict(zip(("tr@1", "tr@5", "tr@10"), result.tr, strict=True))
    return {**ir, **tr, "rsum": result.rsum}
