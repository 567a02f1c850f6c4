"""Show the file of a picture in the file manager of this machine, for a person who sits at it."""

import ipaddress
import sys
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from bridgetower.resources import shortage
from bridgetower.serving.desktop import file_manager, start
from bridgetower.serving.engine import Engine
from bridgetower.serving.http.config import Config
from bridgetower.serving.http.errors import Problem
from bridgetower.serving.http.routes.schemas import Id, failures
from bridgetower.serving.indexed import open_indexed

_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-real-ip")  # the client may be on another machine


def router(engine: Engine, config: Config) -> APIRouter:
    """Return the route. It does not wait in the queue."""
    routes = APIRouter()

    @routes.post(
        "/images/{id}/reveal",
        status_code=204,
        responses={
            **failures(404, 413, 422),
            204: {"description": "The file manager has been asked to show the file."},
        },
        response_class=Response,
        operation_id="reveal",
    )
    async def reveal(request: Request, id: Id) -> Response:
        """Open the folder of a picture's file in the file manager of the machine that serves."""
        opener = opener_for(request, config)
        if opener is None:
            message = "folders are opened for a browser on the server's own machine, which has a desktop: copy the path"
            raise Problem(403, "not_local", message)
        await run_in_threadpool(_reveal, engine, id, opener)
        return Response(status_code=204)

    return routes


def opener_for(request: Request, config: Config) -> str | None:
    """Return the program that opens folders; None unless client and desktop are on this machine, and nobody else may
    ask."""
    is_private = config.is_loopback and not config.names and not config.allow_origins
    is_passed_on = any(name in request.headers for name in _OF_PROXIES)
    return file_manager() if is_private and not is_passed_on and _is_here(request) else None


def _is_here(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _reveal(engine: Engine, id: str, opener: str) -> None:
    """Raises as `open_indexed`, and Problem if the program does not start."""
    opened = open_indexed(engine, id)  # the path of the index, where the file still has this content
    opened.file.close()
    try:
        start([opener, *_arguments(opened.path)])
    except OSError as error:
        raise shortage(error) or Problem(
            403, "not_local", "the file manager cannot be started: copy the path"
        ) from error


def _arguments(file: Path) -> list[str]:
    """Return arguments that show a file and never open it: a folder of macOS may be a program."""
    if sys.platform == "darwin":
        return ["-R", str(file)]
    if sys.platform == "win32":
        return [f"/select,{file}"]
    return [str(file.parent)]
