"""The page for people: the files of `page/`, and no others. They hold nothing of the index, so they need no token."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from bridgetower.serving.http.errors import Problem
from bridgetower.serving.http.routes.pictures import is_known

_FOLDER = Path(__file__).parents[1] / "page"
_DOCUMENT = "index.html"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_NAMES = tuple(sorted(file.name for file in _FOLDER.iterdir() if file.suffix in _TYPES))
PATHS = ("/", *(f"/page/{name}" for name in _NAMES))

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class _PageFile:
    content: bytes
    media_type: str
    headers: dict[str, str]


def _read(name: str) -> _PageFile:
    content = (_FOLDER / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}  # a browser asks each time whether it has changed
    if name == _DOCUMENT:
        headers["Content-Security-Policy"] = _POLICY
    return _PageFile(content, _TYPES[Path(name).suffix], headers)


def router() -> APIRouter:
    """Return the routes of the page, whose files are read now."""
    routes = APIRouter(include_in_schema=False)
    files = {name: _read(name) for name in _NAMES}

    def answer(request: Request, name: str) -> Response:
        if (file := files.get(name)) is None:
            raise Problem(404, "not_found", "the page has no such file")
        if is_known(request, file.headers["ETag"]):
            return Response(status_code=304, headers=file.headers)
        return Response(file.content, media_type=file.media_type, headers=file.headers)

    @routes.get("/")
    async def document(request: Request) -> Response:
        """Return the document of the page."""
        return answer(request, _DOCUMENT)

    @routes.get("/page/{name}")
    async def file(request: Request, name: str) -> Response:
        """Return another file of the page."""
        return answer(request, name)

    return routes
