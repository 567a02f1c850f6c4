"""The routes that tell how the server is."""

from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from bridgetower import Summary, __version__
from bridgetower.errors import NoIndexError
from bridgetower.serving.engine import Engine
from bridgetower.serving.http.routes.answers import as_json
from bridgetower.serving.http.routes.schemas import Health, Status, failures
from bridgetower.serving.request_queue import RequestQueue


def router(engine: Engine, queue: RequestQueue) -> APIRouter:
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
    async def status() -> Response:
        """Tell the figures of the index and of the queue. Wakes no model."""
        return as_json(await run_in_threadpool(_status, engine, queue))

    return routes


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
