"""`bt status`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridgetower import __version__
from bridgetower.records import FOREIGN
from bridgetower.serving.local.client import Greeting, NoServer, look
from bridgetower_cli import render
from bridgetower_cli.config.places import name_of
from bridgetower_cli.libraries import library
from bridgetower_cli.render import counted, visible
from bridgetower_cli.settings import Device, Index, InLibrary, Json, Precision, Quiet, settle
from bridgetower_cli.terminal.tables import Column

FEW = 5  # reasons, and indexed single files, that are shown

if TYPE_CHECKING:
    from bridgetower import Fingerprint, Kept, Root, Runtime, StoreRow, Summary, Tuning


def status(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also each skipped file, and what the model would run on here, and why."),
    ] = False,
    json: Json = False,
    index: Index = None,
    in_library: InLibrary = None,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Show what the index holds, and where it is."""
    settings = settle(index=index, library=in_library, device=device, precision=precision)
    with library(settings) as pictures:
        summary = pictures.summary()
        skipped = pictures.skipped() if verbose else []
    name, server = name_of(settings.index, settings.file), _server(settings.index)
    runtime = None
    if verbose:
        from bridgetower import choose_runtime

        runtime = choose_runtime(settings.device, settings.precision)
    if json:
        fields = _fields(summary, runtime) | {"library": name, "server": _server_fields(server)}
        if verbose:
            fields["skipped_files"] = [{"path": file.path, "reason": file.reason} for file in skipped]
        render.json_line(fields)
    else:
        rows = [*_rows(summary, runtime), ["server", _served(server)]]
        if name is not None:
            rows.insert(1, ["library", name])
        rows += [["skipped file", f"{visible(str(file.path))}: {visible(file.reason)}"] for file in skipped]
        render.table([Column(""), Column("")], rows, header=False)


def _server(index: Path) -> Greeting | str:
    """Return what the server of an index tells about itself, or why there is none."""
    try:
        return look(index)
    except NoServer as why:
        return str(why)


def _server_fields(server: Greeting | str) -> dict[str, Any] | None:
    if isinstance(server, str):
        return None
    names = ("url", "pid", "awake", "since", "version")
    return {name: getattr(server, name) for name in names}


def _served(server: Greeting | str) -> str:
    if isinstance(server, str):
        return f"not serving: {server}"
    other = "" if server.version == __version__ else f", of version {server.version}, which this one does not ask"
    state = "awake" if server.awake else "asleep"
    at = f", at {server.url}" if server.url else ""
    return f"process {server.pid}, {state}, since {render.moment(server.since)}{at}{other}"


def _fields(summary: "Summary", runtime: "Runtime | None") -> dict[str, Any]:
    made_by = summary.fingerprint
    fields: dict[str, Any] = {
        "index": summary.directory,
        "format_version": summary.format_version,
        "model": made_by.model,
        "revision": made_by.revision,
        "weights_sha256": made_by.weights_sha256,
        "preprocessing": made_by.preprocessing,
        "preprocessing_version": made_by.preprocessing_version,
        "precision_family": made_by.precision_family,
        "dim": made_by.dim,
        "pictures": summary.images,
        "files": summary.files,
        "skipped": summary.skipped,
        "reasons": dict(summary.reasons),
        "undated": summary.undated,
        "orphans": summary.orphans,
        "roots": [
            {"path": root.path, "files": root.files, "scanned_at": root.scanned_at, "is_file": root.is_file}
            for root in summary.roots
        ],
        "bytes": summary.bytes_on_disk,
        "generation": summary.generation,
        "uncovered": summary.uncovered,
        "exact": summary.is_exact,
        "store": None if summary.store is None else _store_fields(summary.store),
        "tuning": None if summary.tuning is None else summary.tuning._asdict(),
        "keep_features": 0 if summary.kept is None else summary.kept.capacity,
        "kept": None if summary.kept is None else _kept_fields(summary.kept),
        "created_at": summary.created_at,
        "updated_at": summary.updated_at,
    }
    if runtime is not None:
        fields |= {"device": runtime.device, "precision": runtime.precision, "reason": runtime.reason}
    return fields


def _rows(summary: "Summary", runtime: "Runtime | None") -> list[list[str]]:
    made_by, stored = summary.fingerprint, render.size(summary.bytes_on_disk)
    rows = [
        ["index", f"{visible(str(summary.directory))} (format {summary.format_version}, {stored})"],
        ["model", visible(f"{made_by.model} ({_origin(made_by)})")],
        ["pictures", f"{summary.images}, in {counted(summary.files, 'file')}"],
        ["skipped", counted(summary.skipped, "file")],
        *_reasons(summary),
        ["updated", render.moment(summary.updated_at)],
    ]
    if summary.undated:
        rows.append(["undated", f"{counted(summary.undated, 'file')}, for which the time of the file stands"])
    if summary.kept is not None:
        rows.append(["kept features", _kept(summary.kept, summary.images)])
    if (store := summary.store) is not None:
        rows.append(["store", f"{visible(store.address)}, table {store.name}"])
    if summary.tuning is not None:
        rows.append(["recall", _recall(summary.tuning)])
    if summary.orphans:
        vectors = f"{counted(summary.orphans, 'picture')}, whose vectors are kept until `bt prune`"
        rows.append(["without a file", vectors])
    rows += [["folder", _root(root)] for root in summary.roots if not root.is_file]
    files = [["file", _root(root)] for root in summary.roots if root.is_file]
    rows += files if runtime is not None else _some(files)
    if runtime is not None:
        rows += [
            [
                "vectors",
                f"of length {made_by.dim}, {_family(made_by)}preprocessing {made_by.preprocessing} "
                f"{made_by.preprocessing_version}",
            ],
            *_search_plan(summary),
            ["device", runtime.device],
            ["precision", runtime.reason],
        ]
    return rows


def _store_fields(store: "StoreRow") -> dict[str, Any]:
    return {"address": store.address, "table": store.name, "arrangement": store.arrangement}


def _kept_fields(kept: "Kept") -> dict[str, Any]:
    return {"pictures": kept.images, "bytes": kept.bytes, "precision": kept.precision, "under": kept.under}


def _kept(kept: "Kept", pictures: int) -> str:
    precision = "" if kept.precision is None else f", {kept.precision}"
    place = "" if kept.under is None else f", under {visible(str(kept.under))}"
    size = f"{render.size(kept.bytes)} of at most {render.size(kept.capacity)}"
    return f"of {kept.images} of {counted(pictures, 'picture')}, newest first{place}: {size}{precision}"


def _family(made_by: "Fingerprint") -> str:
    return "" if made_by.precision_family == FOREIGN else f"{render.precisions(made_by.precision_family)}, "


def _origin(made_by: "Fingerprint") -> str:
    if made_by.precision_family == FOREIGN:
        return f"foreign vectors of length {made_by.dim}"
    return f"revision {made_by.revision:.12}, weights {made_by.weights_sha256:.12}"


def _reasons(summary: "Summary") -> list[list[str]]:
    rows = [["", f"{number} x {visible(reason)}"] for reason, number in summary.reasons[:FEW]]
    others = summary.skipped - sum(number for _, number in summary.reasons[:FEW])
    return [*rows, ["", f"{others} x other reasons"]] if others else rows


def _some(files: list[list[str]]) -> list[list[str]]:
    others = len(files) - FEW
    return [*files[:FEW], ["", f"and {counted(others, 'other file')}"]] if others > 0 else files


def _root(root: "Root") -> str:
    when = "not yet scanned to the end" if root.scanned_at is None else f"scanned {render.moment(root.scanned_at)}"
    holds = f"{counted(root.files, 'file')}, " if not root.is_file else "" if root.files else "skipped, "
    return f"{visible(str(root.path))} ({holds}{when})"


def _recall(tuning: "Tuning") -> str:
    queries = f"{counted(tuning.texts, 'text')} and {counted(tuning.pictures, 'picture')}"
    return f"{tuning.recall:.1%} of the true 100 nearest, measured with {queries}"


def _search_plan(summary: "Summary") -> list[list[str]]:
    state = f"generation {summary.generation}, {counted(summary.uncovered, 'picture')} not yet in it"
    tuning, store = summary.tuning, summary.store
    if store is None:
        if tuning is not None:
            state += f"; {tuning.effort} of {tuning.lists} lists are read"
            state += f" and {tuning.candidates} candidates looked at again"
        return [["search file", state]]
    rows = [["table", state], ["arranged as", store.arrangement or "nothing yet"]]
    if tuning is None or not tuning.effort:
        return [*rows, ["search", "all rows are compared; with a filter, those that pass it"]]
    return [
        *rows,
        ["search", f"effort {tuning.effort}, {tuning.candidates} candidates for each 100 pictures"],
        [
            "with a filter",
            "all rows that pass it are compared, if they are few; else so many are asked for that enough pass",
        ],
    ]
