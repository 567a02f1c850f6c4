"""The application: routes behind the checks of `safety` and the limits of `bodies`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware

from bridgetower import __version__
from bridgetower.checkpoints.cache import cache_folder
from bridgetower.serving.cursors import Cursors, Page
from bridgetower.serving.engine import Engine
from bridgetower.serving.http import errors, metrics
from bridgetower.serving.http.bodies import Bodies
from bridgetower.serving.http.config import Config
from bridgetower.serving.http.page_files import read_page
from bridgetower.serving.http.routes import page, pictures, reveal, search, state, tasks
from bridgetower.serving.http.routes.foreign import embeddings, rerank, score
from bridgetower.serving.http.routes.foreign.schemas import BODIES
from bridgetower.serving.http.routes.schemas import FillFields, Given, MatchFields, SearchFields
from bridgetower.serving.http.safety import Safety
from bridgetower.serving.request_queue import RequestQueue
from bridgetower.serving.thumbnails.store import Thumbnails

_EXPIRE_EVERY_S = 30.0
_SCHEMAS = "#/components/schemas/{model}"


def create_app(engine: Engine, queue: RequestQueue, config: Config) -> FastAPI:
    """Return the application. The caller drains the queue and closes the engine after the last request.

    Searches that wait for a next page end when the engine sleeps.
    """
    cursors: Cursors[Page] = Cursors(lambda page: page.is_last)
    engine.on_sleep = cursors.clear
    thumbnails = Thumbnails(config.thumbnails or cache_folder() / "thumbnails")
    figures = metrics.Metrics(engine, queue)
    files = read_page() if config.page else {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(_expire(cursors))
        try:
            yield
        finally:
            expiring.cancel()
            with suppress(asyncio.CancelledError):
                await expiring
            await asyncio.to_thread(cursors.close)
            await asyncio.to_thread(thumbnails.close)

    app = FastAPI(
        title="bt",
        version=__version__,
        description="Search pictures by text and by pictures.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts of other sites
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(metrics.Measured, metrics=figures),
            Middleware(Safety, config=config, queue=queue, page_paths=frozenset(files)),
            Middleware(errors.Defects),
            Middleware(Bodies),
        ],
    )
    errors.install(app)
    for router in (
        search.router(engine, queue, cursors),
        tasks.router(engine, queue),
        rerank.router(engine, queue),
        score.router(engine, queue),
        embeddings.router(engine, queue),
        pictures.router(engine, thumbnails),
        reveal.router(engine, config),
        state.router(engine, queue, config),
        metrics.router(figures),
    ):
        app.include_router(router)
    if files:
        app.include_router(page.router(files))
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


async def _expire(cursors: Cursors[Page]) -> None:
    while True:
        await asyncio.sleep(_EXPIRE_EVERY_S)
        await asyncio.to_thread(cursors.expire)


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the bodies that routes read by themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        kinds: tuple[type[Given], ...] = (SearchFields, MatchFields, FillFields, *BODIES)
        for kind in kinds:
            schema = kind.model_json_schema(ref_template=_SCHEMAS)
            schemas.update(schema.pop("$defs", {}))
            schemas[kind.__name__] = schema
        app.openapi_schema = document
    return app.openapi_schema
