"""Read what a request brings, within limits: JSON or a form, texts and pictures.

A body counts while it arrives, with or without a Content-Length. Its time is limited, and all bodies that the server
holds share one room of memory.
"""

import asyncio
import base64
import binascii
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridgetower.serving.fields import words_of
from bridgetower.serving.http.errors import Problem, unusable
from bridgetower.serving.limits import LONGEST_TEXT, MOST_PICTURES, MOST_TEXTS

MOST_BODY = 64_000_000  # bytes
MOST_PICTURE = 50_000_000  # bytes

_ROOM = 256_000_000  # bytes of all bodies that are held at a time
_STALL_S = 20.0  # the longest time without a byte
_MOST_S = 120.0  # for a whole body
# Signs of JSON that may begin a value: the most that such texts can have. Each value takes up to a hundred bytes.
_MOST_SIGNS = 2 * MOST_TEXTS * LONGEST_TEXT
_parsing = threading.Lock()  # pydantic holds the GIL as it parses; so the values of one body alone take memory
_LONGEST_FIELD = 65_536  # bytes of a field of a form
_MOST_FIELDS = 1_000

DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,60};base64,", re.IGNORECASE | re.ASCII)

_Fields = TypeVar("_Fields", bound=BaseModel)


class Bodies:
    """ASGI middleware that limits the size, the time and the sum of bodies. `receive` raises Problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, _without_body(receive), send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        declared = int(length) if re.fullmatch("[0-9]{1,18}", length) else 0
        loop = asyncio.get_running_loop()
        until, held, complete = loop.time() + _MOST_S, 0, False

        async def limited() -> Message:
            nonlocal held, complete
            if complete:
                return await receive()
            if declared > MOST_BODY:
                raise _too_large()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(_STALL_S, until - loop.time())))
            except TimeoutError as error:
                raise Problem(408, "too_slow", "the body arrives too slowly") from error
            complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            held += size
            self._held += size
            if held > MOST_BODY:
                raise _too_large()
            if self._held > _ROOM:
                raise Problem(429, "busy", "too many large requests at a time: ask again later", {"Retry-After": "5"})
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._held -= held


def _without_body(receive: Receive) -> Receive:
    """Return a `receive` that drops the body as it comes: a refusal could meet an answer that has begun."""
    begun = False

    async def empty() -> Message:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    return empty


def _too_large() -> Problem:
    return Problem(413, "too_large", f"the body is larger than {MOST_BODY // 1_000_000} MB")


async def read_fields(request: Request, kind: type[_Fields]) -> tuple[_Fields, list[bytes]]:
    """Return the fields of a JSON object or of a multipart form, and the files of the form. Raises Problem."""
    media = _media_type(request)
    if media == "application/json":
        return await _read_json(request, lambda _: kind), []
    if media == "multipart/form-data":
        form = await _form(request)
        try:
            return checked(kind, _fields_of(form, kind), strict=False), await _files_of(form)
        finally:
            await form.close()
    raise Problem(
        415, "unsupported_media_type", "the Content-Type of a body is application/json or multipart/form-data"
    )


async def read_json(request: Request, kind_of: Callable[[Mapping[str, Any]], type[_Fields]]) -> _Fields:
    """Return the fields of a JSON object, of the type that `kind_of` returns for it. Raises Problem."""
    if _media_type(request) != "application/json":
        raise Problem(415, "unsupported_media_type", "the Content-Type of a body is application/json")
    return await _read_json(request, kind_of)


def _media_type(request: Request) -> str:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_media_type", "the body of a request is not compressed")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_json(request: Request, kind_of: Callable[[Mapping[str, Any]], type[_Fields]]) -> _Fields:
    return await run_in_threadpool(_from_json, await request.body(), kind_of)


def _from_json(body: bytes, kind_of: Callable[[Mapping[str, Any]], type[_Fields]]) -> _Fields:
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_SIGNS:
        raise Problem(413, "too_large", "there are too many values in the JSON")
    with _parsing:
        try:
            given = from_json(body, allow_inf_nan=False)  # refuses a depth of more than 200
        except ValueError as error:
            raise Problem(400, "bad_request", "the body is no JSON") from error
        if not isinstance(given, dict):
            raise unusable("the JSON is an object")
        return checked(kind_of(given), given, strict=True)


def checked(kind: type[_Fields], given: Mapping[str, Any], *, strict: bool) -> _Fields:
    """Return the fields as their types; unless `strict`, numbers may be written in texts. Raises Problem."""
    try:
        return kind.model_validate(given, strict=strict)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        raise unusable(words_of(first), next(map(str, first["loc"]), None)) from error


class _InMemory(MultiPartParser):
    spool_max_size = MOST_BODY  # no upload is written to a disk


async def _form(request: Request) -> FormData:
    parser = _InMemory(
        request.headers,
        request.stream(),
        max_files=MOST_PICTURES + 1,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise Problem(400, "bad_request", "the body is no form, or has too many or too large fields") from error


def _fields_of(form: FormData, kind: type[BaseModel]) -> dict[str, Any]:
    """Return the fields that are no files; a browser sends an empty text for a field that nobody has filled."""
    fields: dict[str, Any] = {}
    lists = {field.alias or name for name, field in kind.model_fields.items() if "list" in str(field.annotation)}
    for name in form:
        values = [value for value in form.getlist(name) if isinstance(value, str) and value]
        files = any(isinstance(value, UploadFile) for value in form.getlist(name))
        if files and name != "image":
            raise unusable(f"{name[:50]!a} is no field for a file: that is image")
        if name == "image":
            fields["images"] = [{"id": value} for value in values]
        elif values:
            if len(values) > 1 and name not in lists:
                raise unusable(f"{name[:50]!a} is given more than once")
            fields[name] = values if name in lists else values[0]
    return fields


async def _files_of(form: FormData) -> list[bytes]:
    files = [file for file in form.getlist("image") if isinstance(file, UploadFile)]
    contents = [await file.read() for file in files]
    named = [bool(file.filename) for file in files]
    return [content for content, name in zip(contents, named, strict=True) if content or name]


@dataclass(frozen=True, slots=True)
class GivenPicture:
    """A picture of a request: an id of the index, or the bytes of a file."""

    label: str | int  # the id, or the place in the request from 0
    name: Path  # for messages; no file of this name is opened
    id: str | None = None
    content: bytes = b""


def given_pictures(references: Sequence[Any], files: Sequence[bytes]) -> list[GivenPicture]:
    """Return the pictures of a request, first those of its fields; data URLs are decoded. Raises Problem."""
    if len(references) + len(files) > MOST_PICTURES:
        raise unusable(f"at most {MOST_PICTURES} pictures can be given")
    pictures: list[GivenPicture] = []
    for reference in references:
        place = len(pictures)
        name = Path(f"image {place}")
        if reference.id is not None:
            pictures.append(GivenPicture(reference.id, name, id=reference.id))
        else:
            pictures.append(GivenPicture(place, name, content=content_of(reference.data, name)))
    for content in files:
        pictures.append(GivenPicture(len(pictures), Path(f"image {len(pictures)}"), content=content))
    for picture in pictures:
        require_size(picture)
    return pictures


def require_size(picture: GivenPicture) -> None:
    """Raise Problem for a file that is too large."""
    if len(picture.content) > MOST_PICTURE:
        raise Problem(413, "too_large", f"{picture.name} is larger than {MOST_PICTURE // 1_000_000} MB")


def content_of(url: str, name: object) -> bytes:
    """Return the content of a data URL; `name` is that of the picture in messages. Raises Problem."""
    head = DATA_URL.match(url)
    if head is None:
        raise unusable(f"{name}: data is a URL as data:image/jpeg;base64,...; no other URL is opened")
    return from_base64(url, name, head.end())


def from_base64(text: str, name: object, start: int = 0) -> bytes:
    """Return the content that is written in base64 from `start` on. Raises Problem."""
    try:
        return base64.b64decode(memoryview(text.encode("ascii"))[start:], validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise unusable(f"{name}: its data is no base64") from error
