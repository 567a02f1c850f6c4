"""Vectors of texts and pictures, and the model that makes them: `embeddings` and `models` of OpenAI."""

import base64
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from bridgetower.serving.engine import Engine
from bridgetower.serving.hearing import Hearing
from bridgetower.serving.http.bodies import GivenPicture, read_json
from bridgetower.serving.http.errors import Problem, unusable
from bridgetower.serving.http.routes.answers import as_json, to_json
from bridgetower.serving.http.routes.foreign.items import items_of, ready
from bridgetower.serving.http.routes.foreign.matches import model_of
from bridgetower.serving.http.routes.foreign.schemas import (
    NO_USAGE,
    EmbeddingAnswer,
    EmbeddingFields,
    ServedModel,
    ServedModels,
    foreign_failures,
    json_of,
)
from bridgetower.serving.http.running import run
from bridgetower.serving.request_queue import RequestQueue

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def router(engine: Engine, queue: RequestQueue) -> APIRouter:
    """Return the routes of vectors and of the model; those of the model do not wait in the queue."""
    routes = APIRouter()

    @routes.post(
        "/v1/embeddings",
        responses={
            **foreign_failures(400, 404, 408, 413, 415, 422, 429),
            200: {"model": EmbeddingAnswer, "description": "Vectors, in the order of the request."},
        },
        response_class=Response,
        operation_id="embeddings",
        openapi_extra=json_of(EmbeddingFields),
    )
    async def embeddings(request: Request) -> Response:
        """Return vectors of texts and pictures, which can be compared with each other and with those of the index."""
        fields = await read_json(request, lambda _: EmbeddingFields)

        def work(hearing: Hearing) -> bytes:
            return to_json(_embed(engine, fields, hearing))

        return Response(await run(request, queue, work), media_type="application/json")

    @routes.get(
        "/v1/models",
        responses={**foreign_failures(), 200: {"model": ServedModels, "description": "The model of the server."}},
        response_class=Response,
        operation_id="models",
    )
    async def models() -> Response:
        """Name the model of the server. Wakes no model."""
        return as_json({"object": "list", "data": [await run_in_threadpool(_served, engine)]})

    @routes.get(
        "/v1/models/{model:path}",
        responses={
            **foreign_failures(404, 422),
            200: {"model": ServedModel, "description": "The model of the server."},
        },
        response_class=Response,
        operation_id="model",
    )
    async def model(model: str) -> Response:
        """Tell whether the server has a model of this name."""
        served = await run_in_threadpool(_served, engine)
        if served["id"] != model:
            raise Problem(404, "model_not_found", "there is no such model: /v1/models names the one that there is")
        return as_json(served)

    return routes


def _embed(engine: Engine, fields: EmbeddingFields, hearing: Hearing) -> dict[str, Any]:
    """Return an EmbeddingAnswer. Raises Problem."""
    items = items_of(fields.input, "input")
    if fields.dimensions not in (None, length := engine.fingerprint().dim):
        raise unusable(f"the vectors of this model have {length} dimensions, and are not cut", "dimensions")
    texts = {place: item for place, item in enumerate(items) if isinstance(item, str)}
    pictures = {place: item for place, item in enumerate(items) if isinstance(item, GivenPicture)}
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    if texts:
        vectors.update(zip(texts, engine.embed_texts(list(texts.values()), say=hearing.say), strict=True))
    if pictures:
        given = ready(engine, pictures.values(), "input")
        found = engine.embed_images(given, say=hearing.say, on_progress=hearing.on_progress)
        vectors.update(zip(pictures, found, strict=True))
    is_base64 = fields.encoding_format == "base64"
    data = [
        {
            "index": place,
            "object": "embedding",
            "embedding": _in_base64(vectors[place]) if is_base64 else vectors[place].tolist(),
        }
        for place in range(len(items))
    ]
    return {"object": "list", "data": data, "model": model_of(engine), "usage": NO_USAGE}


def _in_base64(vector: "npt.NDArray[np.float32]") -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _served(engine: Engine) -> dict[str, Any]:
    """Return a ServedModel. Raises StoreError."""
    created = engine.summary().created_at
    return {"id": model_of(engine), "object": "model", "created": created, "owned_by": "bt"}
