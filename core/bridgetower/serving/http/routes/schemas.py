"""The fields of requests and answers, as the OpenAPI document has them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bridgetower.serving.limits import ID, LONGEST_TEXT, MOST_ASKED, MOST_DEPTH, MOST_PICTURES, MOST_TEXTS

MOST_HITS = 1_000
_MOST_PLACES = 100

Text = Annotated[str, Field(max_length=LONGEST_TEXT, examples=["two cats on a couch"])]
Id = Annotated[str, Field(pattern=ID, description="The SHA-256 of a picture's content, as hits have it.")]
Moment = Annotated[
    str, Field(max_length=100, description="A date such as 2024-05-17, 2024-05, last week or 3 days ago.")
]
Glob = Annotated[
    str,
    Field(max_length=4096, description="An absolute folder of the index, or a pattern over the names of its files."),
]
# In JSON Schema and JavaScript, 5.0 is an integer.
whole = BeforeValidator(lambda given: int(given) if isinstance(given, float) and given.is_integer() else given)
Depth = Annotated[int, Field(ge=0, le=MOST_DEPTH, description="How many candidates are verified; 0: none."), whole]
FillDepth = Annotated[int, Field(ge=1, le=MOST_DEPTH, description="How many pictures of the index."), whole]


class Given(BaseModel):
    """Fields of a request; any other is refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_no_more(cls, given: Any) -> Any:
        """Refuse an unknown field where there are many: pydantic describes each in most of a kilobyte."""
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            unknown = next(name for name in given if name not in known)
            raise ValueError(f"there is no field {unknown[:50]!a}")
        return given


class PictureReference(Given):
    """A picture: the id of one of the index, or the content of a file. No path is read and no other URL is opened."""

    id: Id | None = None
    data: Annotated[str | None, Field(description="data:image/jpeg;base64,...")] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.id is None) == (self.data is None):
            raise ValueError("a picture has an id, or data")
        return self


class _Limits(Given):
    text: Text | Annotated[list[Text], Field(max_length=MOST_ASKED)] | None = None
    without: Annotated[
        list[Text], Field(alias="not", max_length=MOST_ASKED, description="Texts that must not be true: verified.")
    ] = []
    weights: Annotated[
        list[float] | None,
        Field(max_length=MOST_ASKED + MOST_PICTURES, description="In recall: of each text, then of each picture."),
    ] = None
    under: Annotated[list[Glob], Field(max_length=_MOST_PLACES)] | None = None
    not_under: Annotated[list[Glob], Field(max_length=_MOST_PLACES)] | None = None
    since: Moment | None = None
    before: Moment | None = None
    taken: Moment | None = None
    top: Annotated[int, Field(ge=1, le=MOST_HITS, description="The most hits of a page."), whole] = 10
    depth: Depth | None = None
    min_match: Annotated[float, Field(ge=0, le=1)] | None = None
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    budget_s: Annotated[float, Field(ge=0, le=3600, description="Seconds; then verifying stops.")] | None = None
    exact: Annotated[bool, Field(description="Compare the vectors of all pictures to recall.")] = False
    keep_self: Annotated[bool, Field(description="Keep the pictures that recall among the hits.")] = False
    unique: Annotated[bool, Field(description="Fold pictures of the same view into the best-ranked one.")] = False
    cursor: Annotated[
        str | None, Field(max_length=100, description="Of the page before, alone: the next page of the same state.")
    ] = None


class SearchFields(_Limits):
    """A search, or with `cursor` alone the next page of one."""

    images: Annotated[list[PictureReference], Field(max_length=MOST_PICTURES)] = []


class SearchQuery(_Limits):
    """A search by the parameters of a URL."""

    image: Annotated[list[Id], Field(max_length=MOST_PICTURES)] = []


class MatchFields(Given):
    """Pictures and texts, of which every pair is scored."""

    images: Annotated[list[PictureReference], Field(max_length=MOST_PICTURES)] = []
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]


class FillFields(Given):
    """A text with `<mask>`, which these pictures fill, or the index."""

    text: Annotated[str, Field(max_length=LONGEST_TEXT, examples=["a <mask> looking out"])]
    images: Annotated[list[PictureReference], Field(max_length=MOST_PICTURES)] = []
    top: Annotated[int, Field(ge=1, le=MOST_HITS, description="The most words for each mask."), whole] = 5
    depth: FillDepth | None = None


# Answers


class Hit(BaseModel):
    """One picture. `match` and `similarity` are separate scores, never mixed; higher is better."""

    rank: int
    id: str | None
    path: str
    paths: list[str]
    match: Annotated[float | None, Field(description="A probability; null if it was not verified.")]
    similarity: Annotated[float | None, Field(description="A cosine in [-1, 1].")]
    matches: Annotated[list[float | None], Field(description="The match of each text, where there are several.")]
    against: Annotated[list[float | None], Field(description="The probability of each text of `not`, if verified.")]
    ruled_out: Annotated[bool, Field(description="Whether one of these is probably true.")]
    like: Annotated[list[str], Field(description="With `unique`: the paths of the hits that were folded into it.")]
    verified: bool
    taken_at: str | None
    width: int | None
    height: int | None


class Skipped(BaseModel):
    """A file that could not be read."""

    path: str
    reason: str


class SearchAnswer(BaseModel):
    """A page of hits. `cursor` leads to the next page; null at the end."""

    hits: list[Hit]
    verified: int
    ruled_out: int
    best_match: float | None
    best_similarity: float | None
    depth: int
    skipped: list[Skipped]
    barred: list[Skipped]
    gone: int
    away: list[str]
    in_cloud: int
    damaged: bool
    notes: list[str]
    cursor: str | None


class PairScore(BaseModel):
    """The scores of one pair; `image` is the id, or the place in the request from 0."""

    image: str | int
    text: str
    match: float | None
    itm_logits: list[float] | None
    similarity: float | None


class MatchAnswer(BaseModel):
    """The scores, by picture and then by text."""

    scores: list[PairScore]
    notes: list[str]


class Word(BaseModel):
    """A word for a mask; `images` are the pictures that support it most, as in `PairScore`, or paths of the index."""

    mask: int
    rank: int
    token: str
    probability: float
    images: list[str | int]
    ids: Annotated[list[str], Field(description="Of `images`, if they are paths of the index.")]
    count: Annotated[int, Field(description="Pictures whose own most probable word it is, of all that were read.")]


class FillAnswer(BaseModel):
    """The words, by mask and then by probability."""

    words: list[Word]
    best_match: float | None
    skipped: list[Skipped]
    gone: int
    in_cloud: int
    notes: list[str]


class IndexStatus(BaseModel):
    """The figures of the index."""

    pictures: int
    files: int
    skipped: int
    undated: int
    roots: list[str]
    generation: int
    updated_at: int
    bytes_on_disk: int
    model: str


class QueueStatus(BaseModel):
    """How many requests run, wait, and have been refused since the start."""

    running: int
    waiting: int
    refused: int


class Status(BaseModel):
    """The state of the server; `index` is null where there is none."""

    version: str
    awake: bool
    model: str | None
    queue: QueueStatus
    index: IndexStatus | None
    reveals: Annotated[bool, Field(description="Whether this client can have folders opened on the server's desktop.")]


class Folder(BaseModel):
    """A folder of the index, or a root; `files` are those with a picture at or below it."""

    path: str
    name: str
    files: int


class Folders(BaseModel):
    """The folders directly below `under` by name, or the roots; `more`: there are more than these."""

    under: str | None
    folders: list[Folder]
    more: bool


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]


class Fault(BaseModel):
    """A fault: a word for programs, and a line for people."""

    code: str
    message: str


class Failure(BaseModel):
    """The form of every answer that is no success."""

    error: Fault


_MEANINGS = {
    400: "The body, or the request as HTTP, cannot be read.",
    401: "The token is missing or wrong.",
    403: "A page of another site asks, or for a folder to be opened where that is not allowed.",
    404: "There is no such picture.",
    405: "The path has no such method.",
    408: "The request arrives too slowly.",
    410: "The cursor leads nowhere any more: ask again without it.",
    413: "The body, a picture, or its number of pixels is too large.",
    415: "The body, or a picture, is of a kind that is not read.",
    416: "The file has none of these bytes.",
    421: "The Host is none of the names of the server.",
    422: "A value is out of range, a picture cannot be read, or the model lacks a head for the task.",
    429: "Too many requests: ask again after Retry-After seconds.",
    431: "The head of the request is too large.",
    500: "A defect of the server.",
    503: "The server ends, or lacks its index, its model or memory.",
}
_ALWAYS = (400, 401, 403, 405, 408, 421, 431, 500, 503)


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route for these statuses and those that every route can answer with."""
    return {status: {"model": Failure, "description": _MEANINGS[status]} for status in sorted({*_ALWAYS, *statuses})}


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes the fields of `kind` as JSON, or in a form with files."""
    form = _form_schema(kind)
    named = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    content = {"application/json": named, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def _form_schema(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    fields = {name: _plain(field) for name, field in schema["properties"].items() if name != "images"}
    file = {"type": "string", "contentMediaType": "application/octet-stream", "format": "picture"}
    fields["image"] = {"type": "array", "items": file, "maxItems": MOST_PICTURES}
    return {**schema, "title": f"{kind.__name__}Form", "properties": fields}


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field without null, which no form can have."""
    kinds = [kind for kind in field.get("anyOf", []) if kind.get("type") != "null"]
    rest = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    return {**rest, **kinds[0]} if kinds else rest
