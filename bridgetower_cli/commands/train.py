"""`bt train`."""

import threading
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from bridgetower.errors import UsageError
from bridgetower.records import INT8, Head
from bridgetower.torchrun import place
from bridgetower_cli import interrupts, render
from bridgetower_cli.config.completion import models
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import (
    Device,
    Json,
    Quiet,
    completing,
    duration,
    model_name,
    named_path,
    one_of,
    positive,
    settle,
    share,
    whole,
)

if TYPE_CHECKING:
    from bridgetower import Prepared, StepReport, TrainResult, TrainStart, Validation

PRECISIONS = ("auto", "fp32", "bf16")
Freeze = Literal["none", "towers", "text", "vision"]
FREEZE = get_args(Freeze)
HEADS = tuple(head.value for head in Head)
_ENDING = "ending: the state is saved after this step; Ctrl-C once more ends at once"


def train(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", parser=named_path, help="Pictures with captions: a file as for bt eval."),
    ],
    init: Annotated[
        str,
        typer.Option(
            "--init",
            metavar="MODEL",
            parser=model_name,
            autocompletion=models,
            help='The model to begin with: a repository of the Hugging Face Hub, a folder, or "demo".',
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=named_path,
            help="The folder of the new model, with the state of the run in DIR/run. The same command goes on with it.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=named_path, help="Where the pictures lie. [default: beside DATA]"),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Train on this part of a Karpathy file; may be given several times."),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out pictures that are not there or cannot be read, and name them."),
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option(
            "--val", metavar="DATA", parser=named_path, help="Validate on this file, and train on all of DATA."
        ),
    ] = None,
    val_split: Annotated[
        str | None,
        typer.Option("--val-split", metavar="NAME", help="Validate on this part of a Karpathy file."),
    ] = None,
    val_share: Annotated[
        float | None,
        typer.Option(
            "--val-share",
            metavar="SHARE",
            parser=share,
            help="Hold out this share of the pictures to validate on; 0 for none. [default: 0.05]",
        ),
    ] = None,
    replay: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            parser=named_path,
            help="Mix in pairs of what the model knows already, so that it forgets less; may be given several times.",
        ),
    ] = None,
    replay_images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=named_path, help="Where their pictures lie. [default: beside each file]"),
    ] = None,
    replay_share: Annotated[
        float | None,
        typer.Option(metavar="SHARE", parser=share, help="The share of a batch that they make up. [default: 0.5]"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(parser=whole(20), metavar="N", help="How often each pair is seen. [default: 20]"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(parser=whole(1000), metavar="N", help="Instead of --epochs: how many batches.")
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            parser=whole(64, least=2),
            metavar="N",
            help="Pairs in a batch, over all processes. Larger ones teach recall more, as each pair is told from all "
            "others.",
        ),
    ] = 64,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            parser=whole(8),
            metavar="N",
            help="Compute so many pairs at once, for less memory; the result is the same, but for the numbers that "
            "dropout leaves out. [default: the whole batch]",
        ),
    ] = None,
    lr: Annotated[
        float,
        typer.Option(
            "--lr",
            parser=positive("5e-6"),
            metavar="RATE",
            help="The learning rate at its highest. [default: 5e-6]",
            show_default=False,
        ),
    ] = 5e-6,
    new_factor: Annotated[
        float,
        typer.Option(
            parser=positive("5"),
            metavar="F",
            help="Its factor for the heads and the cross-modal encoder. [default: 5]",
            show_default=False,
        ),
    ] = 5.0,
    warmup: Annotated[
        float,
        typer.Option(
            parser=share, metavar="SHARE", help="In this share of the steps, at the beginning, the rate rises."
        ),
    ] = 0.05,
    freeze: Annotated[
        str,
        typer.Option(
            metavar="|".join(FREEZE),
            parser=one_of(FREEZE),
            autocompletion=completing(FREEZE),
            help="The towers that stay as they are, which takes less memory and time.",
        ),
    ] = "none",
    new_head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(HEADS),
            parser=one_of(HEADS),
            autocompletion=completing(HEADS),
            help="Begin a head that the model lacks; itc makes it searchable. May be given several times.",
        ),
    ] = None,
    no_augment: Annotated[
        bool, typer.Option("--no-augment", help="Show each picture as it is, never cropped, flipped or brightened.")
    ] = False,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Compute each layer twice instead of keeping it: less memory, more time."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(parser=whole(0, least=0), metavar="N", help="Decides all that is drawn.")] = 0,
    save_every: Annotated[
        float | None,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="Save the state of the run so often, as 30s or 2h. [default: 5m]",
        ),
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(
            parser=whole(100), metavar="N", help="Validate after so many steps. [default: each epoch, but at least 50]"
        ),
    ] = None,
    log_every: Annotated[
        int, typer.Option(parser=whole(10), metavar="N", help="Log the losses after so many steps.")
    ] = 10,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Read and check the data and the model, report, and train nothing. DIR gets notes on the pictures.",
        ),
    ] = False,
    json: Json = False,
    workers: Annotated[
        int | None,
        typer.Option(parser=whole(4), metavar="N", help="How many processes decode. [default: one a processor]"),
    ] = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRECISIONS),
            parser=one_of(PRECISIONS),
            autocompletion=completing(PRECISIONS),
            help="How to compute; the weights stay fp32. [env: BT_PRECISION; default: auto, bf16 where the hardware "
            "has it]",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model further on your own pictures and captions.

    The new model is a folder that `bt index --model DIR` and `transformers` take; with validation it is the best one so
    far, at any time. Stop it whenever you like: the same command goes on from there, and ends with the same weights.

    Prints the folder. Several processes train together under torchrun: docs/train.md.
    """
    # Of the processes of torchrun the first one talks.
    leads = place()[0] == 0
    render.hush(not leads)
    settled = settle(device=device, precision=precision, needs_index=False)
    if settled.precision == INT8:
        raise UsageError("int8 is a precision for searching, set for all commands: train with --precision fp32 or bf16")
    from bridgetower import TrainSettings, prepare_training

    wanted = TrainSettings(
        data=data,
        init=init,
        out=out,
        images=images,
        splits=tuple(split or ()),
        skip_missing=skip_missing,
        val=val,
        val_split=val_split,
        val_share=val_share,
        replay=tuple(replay or ()),
        replay_images=replay_images,
        replay_share=replay_share,
        epochs=epochs,
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        lr=lr,
        new_factor=new_factor,
        warmup=warmup,
        freeze=cast("Freeze", freeze),
        new_heads=tuple(Head(name) for name in new_head or ()),
        augment=not no_augment,
        gradient_checkpointing=gradient_checkpointing,
        seed=seed,
        save_every=300.0 if save_every is None else save_every,
        eval_every=eval_every,
        log_every=log_every,
        workers=workers,
        device=settled.device,
        precision=settled.precision,
    )
    with Meter("checking", "pictures") as meter:
        prepared = prepare_training(
            wanted,
            on_progress=lambda *at: meter.update(*at),
            progress=render.talks_to_terminal(),
            say=render.say,
        )
    if leads:
        _print_report(prepared, json=json, dry_run=dry_run)
    if not dry_run:
        result = _train(prepared, log_every, json=json and leads)
        if leads:
            _print_result(result, json=json)


def _print_report(prepared: "Prepared", *, json: bool, dry_run: bool) -> None:
    """Print or say, before a run, all that was found in the data."""
    report = prepared.report
    render.skipped(report.missing)
    render.skipped(report.undecodable)
    if json:
        render.json_line({"event": "data", **report.as_json()})
    validates = ""
    if prepared.data.validation:
        often = f"after every {prepared.eval_every}" if prepared.eval_every < prepared.steps else "at the end"
        validates = f", with a validation {often}"
    elif not prepared.validates:
        validates = ", without validation: the model has no ITC head"
    for line in (*report.lines(), f"{render.counted(prepared.steps, 'step')}{validates}"):
        render.line(line) if dry_run and not json else render.say(line)


def _train(prepared: "Prepared", log_every: int, *, json: bool) -> "TrainResult":
    """Train, with the losses on stderr. Raises KeyboardInterrupt after the first signal, when the state is saved."""
    from bridgetower import train_model

    stopped: list[KeyboardInterrupt] = []

    def end(stop: KeyboardInterrupt) -> None:
        stopped.append(stop)
        # In a thread, because the signal may have come amid a write to the same stream.
        threading.Thread(target=render.say, args=(_ENDING,), daemon=True).start()

    with closing(Meter("training", "steps")) as meter:

        def on_start(start: "TrainStart") -> None:
            if json:
                render.json_line({"event": "start", **asdict(start)})
            _say_start(start)
            meter.update(start.step, prepared.steps)

        def on_step(step: "StepReport") -> None:
            if not (json and render.shows_live_tables()):  # a bar would stand among the rows of this terminal
                meter.update(step.step, prepared.steps, beside=_losses(step))
            if json and (step.step % log_every == 0 or step.step == prepared.steps):
                render.json_line({"event": "step", **step.as_json()})

        def on_validation(validation: "Validation", kept: bool) -> None:
            if json:
                render.json_line({"event": "validation", **validation.as_json(), "kept": kept})
            render.say(f"step {validation.step}: {_recall(validation)}{', kept' if kept else ''}")

        interrupts.hand_over(end)
        interrupts.message = (
            "ended at once: the same command goes on from the last state that was saved, or begins again where none was"
        )
        result = train_model(
            prepared, on_start=on_start, on_step=on_step, on_validation=on_validation, should_stop=lambda: bool(stopped)
        )
    if json:
        best = None if result.best is None else result.best.as_json()
        render.json_line(
            {
                "event": "end", "model": result.folder, "step": result.step, "steps": result.steps, "best": best,
                "finished": result.finished, "already": result.already,
            }
        )  # fmt: skip
    if not result.finished:  # of several processes, another one may have got the signal
        interrupts.message = (
            f"interrupted after step {result.step} of {result.steps}: the state is saved, the same command goes on "
            "from there"
        )
        raise stopped[0] if stopped else KeyboardInterrupt
    return result


def _say_start(start: "TrainStart") -> None:
    """Say what learns, on what, and from which step on."""
    of = "" if start.learning == start.parameters else f" of {start.parameters / 1e6:,.1f}"
    processes = f" in {start.processes} processes" if start.processes > 1 else ""
    render.say(
        f"{start.learning / 1e6:,.1f}{of} million parameters learn on {start.device}{processes}; {start.precision}"
    )
    if start.step:
        render.say(f"going on after step {start.step}")
    if start.changed:
        render.say(f"note: {', '.join(start.changed)}, as the run began: the last bits of its numbers may differ")


def _losses(step: "StepReport") -> str:
    """ "itc 0.412, itm 0.230, mlm 1.873"; a head that the model lacks is left out."""
    losses = {"itc": step.itc, "itm": step.itm, "mlm": step.mlm}
    return ", ".join(f"{head} {loss:.3f}" for head, loss in losses.items() if loss is not None)


def _recall(validation: "Validation") -> str:
    return f"validation IR@1 {validation.ir1:.1f}, TR@1 {validation.tr1:.1f}"


def _print_result(result: "TrainResult", *, json: bool) -> None:
    """Print the folder of the model, and say which step it is of."""
    if not json:
        render.paths([result.folder])
    of = "the last step" if result.best is None else f"step {result.best.step}, {_recall(result.best)}"
    done = "this run was finished before" if result.already else f"trained {render.counted(result.steps, 'step')}"
    render.say(f"{done}; the model is that of {of}")
