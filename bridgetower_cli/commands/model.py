"""`bt model list`, `info`, `pull`, `convert`, `remove`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridgetower.errors import BridgeTowerError, UsageError
from bridgetower_cli import render
from bridgetower_cli.config.completion import models, models_to_remove
from bridgetower_cli.config.file import place, read
from bridgetower_cli.config.places import libraries
from bridgetower_cli.settings import DEFAULT_MODEL, Json, Quiet, model_name, named_path, settle
from bridgetower_cli.terminal.tables import Column

if TYPE_CHECKING:
    from bridgetower import Head, LocalModel, ModelInfo, RemovedModel, SizedFile, Tower


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
                    render.UNKNOWN if model.heads is None else " ".join(_heads(model.heads)),
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


def show_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            parser=model_name,
            autocompletion=models,
            help='A repository of the Hugging Face Hub that is on this machine, a folder, or "demo".',
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a model on this machine is, where it lies, and the disk that it takes."""
    from bridgetower import model_info

    model = model_info(name)
    if json:
        render.json_line(_all_fields(model))
    else:
        render.table([Column(""), Column("", path=True)], _rows(model), header=False)
    if model.heads is None:
        render.say("note: the weights are pickles, whose heads are known when they were first used")


def pull_model(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            parser=model_name,
            autocompletion=models,
            help="A repository of the Hugging Face Hub. [env: BT_MODEL; default: the model of bt index]",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch a model, or what is missing of it, and print its folder."""
    settings = settle(model=name, needs_index=False)
    import bridgetower

    checkpoint = bridgetower.pull_model(settings.model, progress=render.talks_to_terminal(), say=render.say)
    render.say(f"{checkpoint.name} is on this machine, revision {checkpoint.revision}")
    render.paths([checkpoint.folder])


def convert_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            parser=model_name,
            autocompletion=models,
            help="A repository of the Hugging Face Hub, or a folder.",
        ),
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


def remove_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            parser=model_name,
            autocompletion=models_to_remove,
            help="A repository of the Hugging Face Hub that is on this machine.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, how much that is, and change nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove a model from this machine, with the copies of its weights that no other model has.

    The model that comes with bt, and folders of your own, are never removed.
    """
    import bridgetower

    planned = bridgetower.remove_model(name, dry_run=True)
    for library in _made_with(name):
        render.say(f"note: the library {library} was made with {name}: to search it then takes `bt model pull {name}`")
    if not (yes or dry_run):
        if sys.stdin is None or not (sys.stdin.isatty() and render.talks_to_terminal()):
            raise UsageError(f"{name}: nobody can be asked here: give --yes to remove {render.size(planned.bytes)}")
        if not render.asked(f"Remove {name} from this machine, which frees {render.size(planned.bytes)}?"):
            render.say("nothing was removed")
            return
    removed = planned if dry_run else bridgetower.remove_model(name)
    if json:
        render.json_line(_removal(removed) | {"dry_run": dry_run})
    else:
        rows = [
            ["revisions", str(removed.revisions)],
            ["copies of the weights", str(len(removed.copies))],
            ["would free" if dry_run else "freed", render.size(removed.bytes)],
        ]
        render.table([Column(""), Column("", number=True)], rows, header=False)


def _made_with(model: str) -> list[str]:
    """Return the libraries whose index was made with a model. One that cannot be read counts as made with another."""
    from bridgetower.library import Library

    found = []
    for name, folder in libraries(read(place())).items():
        try:
            with Library(folder) as library:
                if library.summary().fingerprint.model == model:
                    found.append(name)
        except BridgeTowerError:
            continue
    return found


def _removal(removed: "RemovedModel") -> dict[str, Any]:
    return {
        "name": removed.name,
        "revisions": removed.revisions,
        "copies": _sizes(removed.copies),
        "bytes": removed.bytes,
    }


def _heads(heads: "frozenset[Head] | None") -> list[str]:
    return sorted(head.name for head in heads or ())


def _sizes(files: "tuple[SizedFile, ...]") -> list[dict[str, Any]]:
    return [{"path": file.path, "bytes": file.bytes} for file in files]


def _fields(model: "LocalModel") -> dict[str, object]:
    return {
        "name": model.name,
        "folder": model.folder,
        "bytes": model.size,
        "heads": None if model.heads is None else [head.lower() for head in _heads(model.heads)],
        "problem": model.problem,
    }


def _all_fields(model: "ModelInfo") -> dict[str, Any]:
    return {
        "name": model.name,
        "folder": model.folder,
        "revision": model.revision,
        "licence": model.licence,
        "heads": None if model.heads is None else [head.lower() for head in _heads(model.heads)],
        "parameters": model.parameters,
        "dim": model.dim,
        "towers": {name: tower._asdict() for name, tower in _towers(model).items()},
        "vocabulary": model.vocabulary,
        "max_tokens": model.max_tokens,
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "preprocessing": model.preprocessing,
        "files": _sizes(model.files),
        "copies": _sizes(model.copies),
        "run_bytes": model.run_bytes,
        "bytes": _bytes(model),
    }


def _towers(model: "ModelInfo") -> "dict[str, Tower]":
    return {"text": model.text, "vision": model.vision, "cross_modal": model.cross_modal}


def _bytes(model: "ModelInfo") -> int:
    return sum(file.bytes for file in (*model.files, *model.copies))


def _rows(model: "ModelInfo") -> list[list[str]]:
    layers = [
        f"{name.replace('_', '-')} {tower.layers} of width {tower.width}" for name, tower in _towers(model).items()
    ]
    side, pixels = model.image_size, model.preprocessing
    rows = [
        ["model", render.visible(model.name)],
        ["folder", render.visible(str(model.folder))],
        ["revision", model.revision],
        ["licence", render.visible(model.licence or render.UNKNOWN)],
        ["heads", " ".join(_heads(model.heads)) or render.UNKNOWN],
        ["parameters", render.UNKNOWN if model.parameters is None else f"{model.parameters / 1e6:,.1f} million"],
        ["vectors", "none" if model.dim is None else f"of length {model.dim}"],
        ["layers", ", ".join(layers)],
        ["texts", f"up to {model.max_tokens} tokens, from a vocabulary of {model.vocabulary}"],
        ["pictures", f"{side} x {side} pixels in patches of {model.patch_size}, preprocessing {pixels['name']}"],
        ["disk", render.size(_bytes(model))],
    ]
    if model.run_bytes:
        rows.append(["run", f"{render.size(model.run_bytes)}, in {render.visible(str(model.folder / 'run'))}"])
    rows += [["file", f"{render.visible(file.path.name)} ({render.size(file.bytes)})"] for file in model.files]
    return rows + [["copy", f"{render.visible(str(file.path))} ({render.size(file.bytes)})"] for file in model.copies]
