"""`bt eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower.records import Head
from bridgetower_cli import engine, render
from bridgetower_cli.progress import Meter
from bridgetower_cli.render import Column
from bridgetower_cli.settings import Device, Json, Model, Precision, named_path, settle

if TYPE_CHECKING:
    from bridgetower.evaluation import Evaluation

DEFAULT_DEPTH = 20


def evaluate(
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS", parser=named_path, help="A file of JSON lines.")],
    depth: Annotated[
        list[int] | None,
        typer.Option(
            min=1, metavar="N", help=f"Candidates to verify; may be given several times. [default: {DEFAULT_DEPTH}]"
        ),
    ] = None,
    json: Json = False,
    model: Model = None,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Measure recall@k on a file of captions.

    Each line of the file is {"image": "cat.jpg", "captions": ["a cat", ...]}, paths relative to the file; several
    lines for one picture count as one. Prints how many of the queries, in percent, find their own among the first 1,
    5 and 10 results (IR: text to picture, TR: picture to text), by similarity alone and for each depth of
    verification. A model without matching head is measured by similarity alone.
    """
    settings = settle(model=model, device=device, precision=precision)
    from bridgetower.evaluation import evaluate as measure
    from bridgetower.evaluation import read_captions
    from bridgetower.heads import require_heads

    captioned = read_captions(captions)
    encoder = engine.find(settings.model, settings).encoder
    require_heads(encoder.heads, Head.ITC)
    depths = list(dict.fromkeys(depth or [DEFAULT_DEPTH]))
    if Head.ITM not in encoder.heads and not depth:
        render.say("note: this model has no ITM head to verify with; it is measured by similarity alone")
        depths = []
    with Meter("encoding", "pictures") as meter:
        # `meter` is that of the pass at hand
        measured = measure(
            encoder, encoder, captioned, depths=depths, on_progress=lambda *counts: meter.update(*counts)
        )
        results = [next(measured)]
    with Meter("verifying", "pictures") as meter:
        results += measured
    render.say(f"{render.counted(results[0].pictures, 'picture')}, {render.counted(results[0].texts, 'text')}")
    if json:
        for result in results:
            render.json_line({"method": result.method, "depth": result.depth, **_scores(result)})
    else:
        names = [name.upper() if "@" in name else name for name in _scores(results[0])]
        render.table(
            [Column("method"), Column("depth", number=True), *(Column(name, number=True) for name in names)],
            [[r.method, str(r.depth or render.UNKNOWN), *(f"{s:.1f}" for s in _scores(r).values())] for r in results],
        )


def _scores(result: "Evaluation") -> dict[str, float]:
    """Percent."""
    ir = dict(zip(("ir@1", "ir@5", "ir@10"), result.ir, strict=True))
    tr = dict(zip(("tr@1", "tr@5", "tr@10"), result.tr, strict=True))
    return {**ir, **tr, "rsum": result.rsum}
