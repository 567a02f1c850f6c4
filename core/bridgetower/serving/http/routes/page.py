"""The page for people."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from bridgetower.serving.http.errors import Problem
from bridgetower.serving.http.page_files import DOCUMENT, PageFile
from bridgetower.serving.http.routes.pictures import is_known


def router(files: Mapping[str, PageFile]) -> APIRouter:
    """Return the routes of these files, by the paths of their URLs."""
    routes = APIRouter(include_in_schema=False)

    def answer(request: Request, path: str) -> Response:
        if (file := files.get(path)) is None:
            raise Problem(404, "not_found", "the page has no such file")
        if is_known(request, file.headers["ETag"]):
            return Response(status_code=304, headers=file.headers)
        return Response(file.content, media_type=file.media_type, headers=file.headers)

    @routes.api_route(DOCUMENT, methods=["GET", "HEAD"])
    async def document(request: Request) -> Response:
        """Return the document of the page."""
        return answer(request, DOCUMENT)

    @routes.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        """Return another file of the page."""
        return answer(request, f"/page/{name}")

    return routes
