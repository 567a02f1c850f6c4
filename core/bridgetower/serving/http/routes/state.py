"""The routes that tell how the server is."""

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from bridgetower import Summary, __version__
from bridgetower.errors import NoIndexError
from bridgetower.serving.engine import Engine
from bridgetower.serving.http.config import Config
from bridgetower.serving.http.errors import unusable
from bridgetower.serving.http.routes.answers import as_json
from bridgetower.serving.http.routes.reveal import opener_for
from bridgetower.serving.http.routes.schemas import Folders, Health, Status, failures
from bridgetower.serving.request_queue import RequestQueue

MOST_FOLDERS = 1_000
Under = Annotated[
    str | None,
    Query(max_length=4096, description="An absolute folder of the index; %XX is a byte of a name that is not UTF-8."),
]


def router(engine: Engine, queue: RequestQueue, config: Config) -> APIRouter:
    """Return the routes of the state. They do not wait in the queue."""
    routes = APIRouter()

    @routes.get(
        "/healthz",
        responses={**failures(), 200: {"model": Health, "description": "The server answers."}},
        response_class=Response,
        operation_id="healthz",
    )
    async def healthz() -> Response:
        """Tell that the server answers. Needs no token."""
        return as_json({"status": "ok"})

    @routes.get(
        "/status",
        responses={**failures(), 200: {"model": Status, "description": "The state of the server."}},
        response_class=Response,
        operation_id="status",
    )
    async def status(request: Request) -> Response:
        """Tell the figures of the index and of the queue. Wakes no model."""
        told = await run_in_threadpool(_status, engine, queue)
        return as_json({**told, "reveals": opener_for(request, config) is not None})

    @routes.get(
        "/folders",
        responses={**failures(422), 200: {"model": Folders, "description": "Folders of the index."}},
        response_class=Response,
        operation_id="folders",
    )
    async def folders(request: Request, under: Under = None) -> Response:
        """List the folders directly below one that hold files of the index; without `under`, the roots."""
        folder = None if under is None else _folder(request)
        return as_json(await run_in_threadpool(_folders, engine, folder))

    return routes


def _folder(request: Request) -> Path:
    """Return the folder of a request, whose bytes need not be UTF-8. Raises Problem."""
    query = request.scope["query_string"].decode("latin-1")
    under = parse_qs(query, keep_blank_values=True, errors="surrogateescape")["under"][-1]
    if "\0" in under or not os.path.isabs(under):
        raise unusable("under: an absolute folder of the index is wanted")
    return Path(under)


def _folders(engine: Engine, under: Path | None) -> dict[str, Any]:
    found = engine.folders(under, most=MOST_FOLDERS + 1)
    return {
        "under": None if under is None else str(under),
        "folders": [
            {"path": str(one.path), "name": one.path.name or str(one.path), "files": one.files}
            for one in found[:MOST_FOLDERS]
        ],
        "more": len(found) > MOST_FOLDERS,
    }


def _status(engine: Engine, queue: RequestQueue) -> dict[str, Any]:
    try:
        index = _index(engine.summary())
    except NoIndexError:
        index = None
    return {
        "version": __version__,
        "awake": engine.is_awake,
        "model": engine.model,
        "queue": {"running": queue.running, "waiting": max(0, queue.waiting), "refused": queue.refused},
        "index": index,
    }


def _index(summary: Summary) -> dict[str, Any]:
    return {
        "pictures": summary.images,
        "files": summary.files,
        "skipped": summary.skipped,
        "undated": summary.undated,
        "roots": [str(root.path) for root in summary.roots],
        "generation": summary.generation,
        "updated_at": summary.updated_at,
        "bytes_on_disk": summary.bytes_on_disk,
        "model": summary.fingerprint.model,
    }
