"""The fields of requests and answers in the forms of Jina, Cohere, text-embeddings-inference, vLLM and OpenAI."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from bridgetower.serving.http.routes.foreign.items import MOST_ITEMS
from bridgetower.serving.http.routes.schemas import Given, failures, whole
from bridgetower.serving.limits import ID, LONGEST_TEXT

_DATA_URL = "^data:image/[A-Za-z0-9.+-]{1,60};base64,"
_PATTERN = f"{_DATA_URL}|{ID}"


def _object(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, kind: value},
        "required": [kind],
        "additionalProperties": False,
    }


def _listed(kind: dict[str, Any], **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": kind, "minItems": 1, **limits}


def _content(parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"content": parts}, "required": ["content"], "additionalProperties": False}


_string = {"type": "string", "maxLength": LONGEST_TEXT}
_reference = {"type": "string", "pattern": _PATTERN, "description": "A data URL, or the id of a picture of the index."}
_url = {
    "type": "object",
    "properties": {"url": _reference, "detail": {}},
    "required": ["url"],
    "additionalProperties": False,
}
_any_image = {"type": "string", "description": "A data URL, bare base64, or the id of a picture of the index."}
_text_parts = [_string, _object("text", _string)]
_picture_parts = [_reference, _object("image", _any_image), _object("image_url", {"anyOf": [_reference, _url]})]


def _items(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of one text or picture, or of a list."""
    part = {"anyOf": parts}
    one = {"anyOf": [*parts, _content(_listed(part, maxItems=1))]}
    return {"anyOf": [*parts, _listed(one, maxItems=MOST_ITEMS), _content(_listed(part, maxItems=MOST_ITEMS))]}


_Text = Annotated[Any, WithJsonSchema({"anyOf": [*_text_parts, _content(_listed({"anyOf": _text_parts}, maxItems=1))]})]
_Pictures = Annotated[Any, WithJsonSchema(_items(_picture_parts))]
_Items = Annotated[Any, WithJsonSchema(_items([*_text_parts, *_picture_parts]))]
_AnyModel = Annotated[str | None, Field(description="Any name: one model is served, which the answer names.")]
_Ignored = Annotated[Any, Field(description="Ignored.")]


class RerankFields(Given):
    """A text and pictures, in the form of Jina and Cohere."""

    model: _AnyModel = None
    query: _Text
    documents: _Pictures
    top_n: Annotated[int, Field(ge=1), whole] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: _Ignored = None
    max_doc_length: _Ignored = None
    max_query_length: _Ignored = None
    max_tokens_per_doc: _Ignored = None
    max_tokens_per_query: _Ignored = None
    priority: _Ignored = None
    rank_fields: _Ignored = None
    truncate_prompt_tokens: _Ignored = None
    truncation: _Ignored = None
    truncation_side: _Ignored = None
    user: _Ignored = None


class RerankTextsFields(Given):
    """A text and pictures, in the form of text-embeddings-inference."""

    model: _AnyModel = None
    query: Annotated[str, Field(max_length=LONGEST_TEXT)]
    texts: Annotated[list[str], WithJsonSchema(_listed(_reference, maxItems=MOST_ITEMS))]
    raw_scores: Annotated[bool | None, Field(description="Score by the difference of the two logits.")] = None
    return_text: bool | None = None
    truncate: _Ignored = None
    truncation_direction: _Ignored = None


class ScoreFields(Given):
    """Texts and pictures, in the form of vLLM: one with each of the others, or pairs. One of the sides is texts."""

    model: _AnyModel = None
    text_1: _Items
    text_2: _Items
    priority: _Ignored = None
    truncate_prompt_tokens: _Ignored = None
    truncation_side: _Ignored = None
    user: _Ignored = None


class EmbeddingFields(Given):
    """Texts and pictures that become vectors, in the form of OpenAI, and of Jina for pictures."""

    model: _AnyModel = None
    input: _Items
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64: of float32, lowest byte first.")
    ] = None
    dimensions: Annotated[int, Field(ge=1, description="Refused unless it is that of the model."), whole] | None = None
    normalized: _Ignored = None
    priority: _Ignored = None
    task: _Ignored = None
    truncate: _Ignored = None
    truncate_prompt_tokens: _Ignored = None
    user: _Ignored = None


# Answers


class Usage(BaseModel):
    """Tokens, which are not counted."""

    prompt_tokens: Literal[0]
    total_tokens: Literal[0]


NO_USAGE = {"prompt_tokens": 0, "total_tokens": 0}


class RerankResult(BaseModel):
    """A picture by its place in the request from 0, and its match."""

    index: int
    relevance_score: Annotated[float, Field(description="The match: a probability.")]
    document: Annotated[dict[str, Any], Field(description="As it was sent; text is the string that was sent.")] = {}


class RerankMeta(BaseModel):
    """The version of the form, and notes on the request."""

    api_version: dict[str, str]
    warnings: list[str]


class RerankAnswer(BaseModel):
    """Pictures by falling match."""

    id: str
    model: str
    results: list[RerankResult]
    meta: RerankMeta
    usage: Usage


class RankedText(BaseModel):
    """A picture by its place in the request from 0."""

    index: int
    score: Annotated[float, Field(description="The match, or with raw_scores the difference of its logits.")]
    text: Annotated[str, Field(description="As it was sent.")] = ""


class Score(BaseModel):
    """The match of a text and a picture."""

    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(BaseModel):
    """Matches, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class Embedding(BaseModel):
    """A vector of unit length."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class EmbeddingAnswer(BaseModel):
    """Vectors, in the order of the request."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ServedModel(BaseModel):
    """The model of the server; `created` is the time of the index."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ServedModels(BaseModel):
    """The one model of the server."""

    object: Literal["list"]
    data: list[ServedModel]


class ForeignFault(BaseModel):
    """A fault in the form of OpenAI."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str


class ForeignFailure(BaseModel):
    """The form of every answer that is no success, as OpenAI has it."""

    error: ForeignFault


BODIES: tuple[type[Given], ...] = (RerankFields, RerankTextsFields, ScoreFields, EmbeddingFields)


def foreign_failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route as `failures`, in the form of OpenAI."""
    return {status: {**told, "model": ForeignFailure} for status, told in failures(*statuses).items()}


def json_of(*kinds: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes JSON with the fields of one of `kinds`."""
    references = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def routes_of(
    work: Callable[..., Awaitable[Response]], paths: Mapping[str, str], answer: dict[str, Any], *kinds: type[BaseModel]
) -> APIRouter:
    """Return the routes of `work` at several paths, each with its operation id. `answer` documents the status 200,
    `kinds` the fields."""
    routes = APIRouter()
    answers = {**foreign_failures(400, 404, 408, 413, 415, 422, 429), 200: answer}
    for path, name in paths.items():
        routes.add_api_route(
            path,
            work,
            methods=["POST"],
            responses=answers,
            response_class=Response,
            operation_id=name,
            openapi_extra=json_of(*kinds),
        )
    return routes
