"""`bt model list`, `bt model pull`, `bt model convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridgetower_cli import render
from bridgetower_cli.render import Column
from bridgetower_cli.settings import DEFAULT_MODEL, Json, Quiet, model_name, named_path, settle

if TYPE_CHECKING:
    from bridgetower import LocalModel


def list_models(json: Json = False, quiet: Quiet = False) -> None:
    """Show the models that are on this machine, with their heads.

    Indexing and searching take ITC, verifying and matching take ITM, filling takes MLM.
    """
    from bridgetower import available_models

    models = available_models()
    if json:
        for model in models:
            render.json_line(_fields(model))
    else:
        render.table(
            [Column("model"), Column("heads"), Column("size", number=True), Column("folder", path=True)],
            [
                [
                    render.visible(model.name),
                    render.UNKNOWN if model.heads is None else " ".join(_heads(model)),
                    render.size(model.size),
                    render.visible(str(model.folder)),
                ]
                for model in models
            ],
        )
    for model in models:
        if model.problem is not None:
            render.say(f"note: {model.name} cannot be used: {model.problem}")
    if DEFAULT_MODEL not in [model.name for model in models]:
        render.say(f"note: the default model is not on this machine; fetch it with `bt model pull {DEFAULT_MODEL}`")


def pull_model(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            parser=model_name,
            help="A repository of the Hugging Face Hub. [env: BT_MODEL; default: the model of bt index]",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch a model, or what is missing of it, and print its folder."""
    settings = settle(model=name)
    import bridgetower

    checkpoint = bridgetower.pull_model(settings.model, progress=render.talks_to_terminal(), say=render.say)
    render.say(f"{checkpoint.name} is on this machine, revision {checkpoint.revision}")
    render.paths([checkpoint.folder])


def convert_model(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", parser=model_name, help="A repository of the Hugging Face Hub, or a folder."),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=named_path, help="Where to write it: a new or empty folder.")
    ],
    quiet: Quiet = False,
) -> None:
    """Write a model as one folder of safetensors.

    `transformers` reads it, too. Prints that folder.
    """
    import bridgetower

    checkpoint = bridgetower.convert_model(name, folder, progress=render.talks_to_terminal(), say=render.say)
    render.paths([checkpoint.folder])


def _heads(model: "LocalModel") -> list[str]:
    return sorted(head.name for head in model.heads or ())


def _fields(model: "LocalModel") -> dict[str, object]:
    return {
        "name": model.name,
        "folder": model.folder,
        "bytes": model.size,
        "heads": None if model.heads is None else [head.lower() for head in _heads(model)],
        "problem": model.problem,
    }
