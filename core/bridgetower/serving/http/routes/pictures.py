"""The routes of pictures of the index, and the pictures of requests as the engine takes them."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from bridgetower.serving.engine import Engine
from bridgetower.serving.http.bodies import GivenPicture
from bridgetower.serving.http.errors import Problem
from bridgetower.serving.http.routes.ranges import wanted_range
from bridgetower.serving.http.routes.schemas import Id, failures
from bridgetower.serving.indexed import IndexedPicture, OpenPicture, file_of, open_indexed, read_indexed
from bridgetower.serving.limits import FILES_TOGETHER
from bridgetower.serving.thumbnails.store import SIDES, Thumbnails, side_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bridgetower import Preprocessing

Wide = Annotated[
    int,
    Query(
        ge=16,
        le=SIDES[-1],
        description=f"The longest side in pixels, raised to one of {', '.join(map(str, SIDES))}.",
    ),
]
Range = Annotated[str | None, Header(description="One range of bytes, as bytes=0-1023.")]
IfRange = Annotated[str | None, Header(description="The ETag of the file of which there is a part already.")]
_CHUNK = 262_144  # bytes
_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}  # an id never has another content


def router(engine: Engine, thumbnails: Thumbnails) -> APIRouter:
    """Return the routes of pictures. They do not wait in the queue."""
    routes = APIRouter()
    limiter = anyio.CapacityLimiter(FILES_TOGETHER)
    refusals = failures(404, 413, 422)
    headers_alone: dict[int | str, dict[str, Any]] = {
        200: {"description": "The headers of a GET, without the file."},
        304: {"description": "The client has this picture."},
    }
    any_picture = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    answers = {**failures(404, 413, 416, 422), **headers_alone}
    answers[200] = {"description": "The file.", "content": {"image/*": any_picture}}
    answers[206] = {"description": "The range of bytes that is asked for.", "content": {"image/*": any_picture}}

    @routes.get("/images/{id}", responses=answers, response_class=Response, operation_id="image")
    async def image(request: Request, id: Id, range: Range = None, if_range: IfRange = None) -> Response:
        """Return the file of a picture of the index, as it is; or a single range of its bytes."""
        return await answered(request, id)

    @routes.head(
        "/images/{id}", responses={**refusals, **headers_alone}, response_class=Response, operation_id="image_head"
    )
    async def image_head(request: Request, id: Id) -> Response:
        """Return the headers of the file of a picture."""
        return await answered(request, id)

    async def answered(request: Request, id: str) -> Response:
        tag = f'"{id}"'
        headers = {"Accept-Ranges": "bytes", "ETag": tag, **_KEPT}
        if is_known(request, tag):
            await anyio.to_thread.run_sync(partial(file_of, engine, id), limiter=limiter)
            return Response(status_code=304, headers=headers)
        opened = await anyio.to_thread.run_sync(partial(open_indexed, engine, id), limiter=limiter)
        if request.method == "HEAD":
            opened.file.close()
            headers["Content-Length"] = str(opened.size)
            return Response(headers=headers, media_type=opened.media_type)
        try:
            part = wanted_range(request.headers, opened.size, tag)
        except Problem:
            opened.file.close()
            raise
        return _FileResponse(opened, headers, part)

    answers = {**failures(404, 413, 415, 422), **headers_alone}
    answers[200] = {"description": "The thumbnail.", "content": {"image/jpeg": any_picture}}

    @routes.get("/thumbs/{id}", responses=answers, response_class=Response, operation_id="thumbnail")
    async def thumbnail(request: Request, id: Id, w: Wide = 256) -> Response:
        """Return a small upright JPEG file of a picture of the index."""
        return await small(request, id, w)

    @routes.head(
        "/thumbs/{id}",
        responses={**answers, **headers_alone},
        response_class=Response,
        operation_id="thumbnail_head",
    )
    async def thumbnail_head(request: Request, id: Id, w: Wide = 256) -> Response:
        """Return the headers of a thumbnail."""
        return await small(request, id, w)

    async def small(request: Request, id: str, w: int) -> Response:
        side = side_of(w)
        tag = f'"{id}-{side}"'
        headers = {"ETag": tag, **_KEPT}

        def made() -> bytes | None:
            name = file_of(engine, id)
            return None if is_known(request, tag) else thumbnails.get(id, side, partial(read_indexed, engine, id), name)

        content = await anyio.to_thread.run_sync(made, limiter=limiter)
        if content is None:
            return Response(status_code=304, headers=headers)
        if request.method == "HEAD":
            headers["Content-Length"] = str(len(content))
            content = b""
        return Response(content, media_type="image/jpeg", headers=headers)

    return routes


def is_known(request: Request, tag: str) -> bool:
    """Return whether a client has the picture of an ETag."""
    return tag in (given.strip() for given in request.headers.get("if-none-match", "").split(","))


class UploadedPicture:
    """A picture of a request, decoded when its pixels are needed."""

    def __init__(self, engine: Engine, content: bytes, name: Path) -> None:
        self.name, self._engine, self._content = name, engine, content

    def pixels(self, preprocessing: "Preprocessing") -> "npt.NDArray[np.float32]":
        """Return pixels, as `GuardedPicture`. Raises as that."""
        return self._engine.picture(self._content, self.name).pixels(preprocessing)

    def content_hash(self) -> bytes:
        """Return the SHA-256 of the content."""
        return hashlib.sha256(self._content).digest()

    def forget(self) -> None:
        """Let the content go."""
        self._content = b""


EnginePicture = UploadedPicture | IndexedPicture


def engine_pictures(engine: Engine, pictures: Iterable[GivenPicture]) -> list[EnginePicture]:
    """Return pictures as the engine takes them. Raises NoPicture, StoreError."""
    return [
        UploadedPicture(engine, one.content, one.name) if one.id is None else IndexedPicture(engine, one.id, one.name)
        for one in pictures
    ]


class _FileResponse(StreamingResponse):
    """The content of an open file, or a range of its bytes, in small pieces; the file is closed at the end."""

    def __init__(self, opened: OpenPicture, headers: dict[str, str], part: range | None) -> None:
        status, sent = (200, range(opened.size)) if part is None else (206, part)
        headers = {**headers, "Content-Length": str(len(sent))}
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{opened.size}"
        super().__init__(_pieces(opened.file, sent), status, headers, opened.media_type)
        self._file = opened.file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _pieces(file: BinaryIO, sent: range) -> Iterator[bytes]:
    file.seek(sent.start)
    left = len(sent)
    while left and (piece := file.read(min(_CHUNK, left))):
        left -= len(piece)
        yield piece
