"""Every failure of a request as one form: a status, a word for programs, a line for people.

    {"error": {"code": "busy", "message": "80 requests wait or run: ask again later"}}

Clients of other services expect the form of OpenAI on their paths:

    {"error": {"message": "...", "type": "rate_limit_error", "param": null, "code": "busy"}}

A message never comes from an exception, unless its words are for the one who asks: those of a UsageError and the reason
for which a picture cannot be decoded. Others may name folders of this machine, so they go to the log.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridgetower.errors import (
    BridgeTowerError,
    MissingExtraError,
    MissingHeadError,
    ModelError,
    NoIndexError,
    PictureError,
    PixelLimitError,
    ResourceError,
    StoreError,
    UnreachableStoreError,
    UsageError,
)
from bridgetower.serving.fields import words_of
from bridgetower.serving.indexed import InCloud, NoPicture, TooLarge
from bridgetower.serving.request_queue import Busy, ClientGone, Draining

log = logging.getLogger("bridgetower.serving.http")

_LONGEST = 500  # characters of a message
GONE = 499  # the status of a request whose client has gone, for metrics alone: nobody reads the answer
_FOREIGN = ("/v1/", "/v2/")  # how the paths of other services begin
_FOREIGN_PATHS = ("/rerank", "/score")
_LONGEST_WAIT = 5  # seconds of Retry-After on these paths: their clients wait so long by themselves, several times
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


def is_foreign(path: str) -> bool:
    """Return whether a path is one of another service, which has its own form of failures."""
    return path.startswith(_FOREIGN) or path in _FOREIGN_PATHS


class Problem(Exception):
    """A request is refused, with this status. The message is one line for the one who asks; `param` names the field."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.param = None if param is None else param[:_LONGEST]
        self.status, self.code, self.message = status, code, " ".join(message.split())[:_LONGEST]
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the answer, as JSON."""
        return json.dumps({"error": {"code": self.code, "message": self.message}}).encode()

    def response(self, path: str) -> Response:
        """Return the answer to a request of this path."""
        if not is_foreign(path):
            return Response(self.body(), self.status, self.headers, "application/json")
        error = {"message": self.message, "type": self._type, "param": self.param, "code": self.code}
        headers = dict(self.headers)
        if "Retry-After" in headers:
            headers["Retry-After"] = str(min(int(headers["Retry-After"]), _LONGEST_WAIT))
        return Response(json.dumps({"error": error}), self.status, headers, "application/json")

    @property
    def _type(self) -> str:
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return "rate_limit_error"
        return "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def ending() -> Problem:
    """Return the refusal of a server that drains."""
    return Problem(503, "draining", "the server ends: ask again when it has started again", {"Retry-After": "5"})


def unusable(message: str, param: str | None = None) -> Problem:
    """Return the refusal of values that are out of range or cannot go together; `param` is the field at fault."""
    return Problem(422, "invalid", message, param=param)


def problem_of(error: BaseException) -> Problem:
    """Return the answer to an exception; log those that need the one who runs the server."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Busy | Draining):
        code, status = ("busy", 429) if isinstance(error, Busy) else ("draining", 503)
        return Problem(status, code, str(error), {"Retry-After": str(error.retry_after)})
    if isinstance(error, ClientGone | ClientDisconnect):
        return Problem(GONE, "gone", "the client has gone")
    if isinstance(error, NoPicture):
        return _no_picture(error)
    if isinstance(error, RequestValidationError):
        return unusable(words_of(error.errors()[0], skip=1))
    if isinstance(error, HTTPException):
        code = _CODES.get(error.status_code, "refused")
        phrase = HTTPStatus(error.status_code).phrase
        message = "there is no such path: /openapi.json names those that there are" if code == "not_found" else phrase
        return Problem(error.status_code, code, message, error.headers)
    if isinstance(error, BridgeTowerError):
        return _expected(error)
    if isinstance(error, MemoryError):
        return _expected(ResourceError("not enough memory"))
    log.error("a defect", exc_info=error)
    return Problem(500, "defect", "a defect of the server: its log says more")


def _expected(error: BridgeTowerError) -> Problem:
    if isinstance(error, UsageError):
        return unusable(str(error))
    if isinstance(error, PictureError):
        return _picture(error)
    if isinstance(error, MissingHeadError):
        return Problem(422, "no_head", "the model of this server lacks a head that this task needs")
    log.error("%s", error)
    later = {"Retry-After": "60"}
    if isinstance(error, NoIndexError):
        return Problem(503, "no_index", "there is no index in the folder that is served", later)
    if isinstance(error, UnreachableStoreError):
        later = {"Retry-After": "5"}
        return Problem(503, "store", "the database that recalls does not answer: ask again later", later)
    if isinstance(error, StoreError):
        return Problem(503, "index", "the index cannot be read: the log of the server says more", later)
    if isinstance(error, ModelError):
        return Problem(503, "model", "the model is not there: the log of the server says more", later)
    if isinstance(error, ResourceError):
        later = {"Retry-After": "5"}
        return Problem(503, "resources", "the server lacks memory, file handles or threads: ask again later", later)
    return unusable("an input cannot be read")


def _no_picture(error: NoPicture) -> Problem:
    if isinstance(error, TooLarge):
        return Problem(413, "too_large", str(error))
    return Problem(404, "in_cloud" if isinstance(error, InCloud) else "not_found", str(error))


def _picture(error: PictureError) -> Problem:
    name = "a picture of the index" if error.path.is_absolute() else str(error.path)
    if isinstance(error, PixelLimitError):
        return Problem(413, "too_many_pixels", f"{name}: {error.reason}")
    if isinstance(error, MissingExtraError):
        return Problem(415, "unsupported_picture", f"{name}: the server lacks the library that reads its format")
    return Problem(422, "unreadable_picture", f"{name}: {error.reason}")


async def answer_problem(request: Request, error: Exception) -> Response:
    """Answer an exception of a route."""
    problem = problem_of(error)
    path = getattr(request.scope.get("route"), "path_format", None)
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED and path in (paths := request.app.openapi()["paths"]):
        problem.headers = {"Allow": ", ".join(sorted(paths[path])).upper()}  # Starlette names those of one route alone
    return problem.response(request.scope["path"])


def install(app: FastAPI) -> None:
    """Let the exceptions that routes raise on purpose be answered in this form."""
    expected = (BridgeTowerError, Busy, ClientDisconnect, ClientGone, Draining, HTTPException, NoPicture, Problem)
    for kind in (*expected, RequestValidationError, Exception):  # Exception: of what is outside of `Defects`
        app.add_exception_handler(kind, answer_problem)


class Defects:
    """ASGI middleware that answers every other exception with 500, so that no text of it reaches a client.

    uvicorn cancels requests when the time to drain is over: they get 503.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if started or scope["type"] != "http":  # the connection is cut, which shows that the answer is not whole
                raise
            await problem_of(error).response(scope["path"])(scope, receive, noting)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not started:
                await ending().response(scope["path"])(scope, receive, noting)
