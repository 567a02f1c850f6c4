"""The arguments and the structured answers of the tools, as clients see them in their schemas."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bridgetower.serving.limits import ID, LONGEST_TEXT, MOST_ASKED, MOST_DEPTH, MOST_PICTURES, MOST_TEXTS

MOST_HITS = 48  # of a page: more would be too small on one sheet
MOST_LOOKED_AT = 4
LEAST_SIDE, MOST_SIDE = 64, 2048  # pixels

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Id = Annotated[str, Field(pattern=ID, description="The `id` of a hit: 64 hexadecimal digits.")]
Moment = Annotated[str, Field(max_length=100)]
Place = Annotated[str, Field(max_length=4096)]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_no_more(cls, given: Any) -> Any:
        """Refuse an unknown argument by a line that names those that there are."""
        unknown = [name for name in given if name not in cls.model_fields]
        if unknown:
            raise ValueError(f"there is no argument {unknown[0][:50]!a}: there are {', '.join(cls.model_fields)}")
        return given


class SearchArguments(_Arguments):
    """A search by a text, by a picture of the index, or by both; or, with `cursor` alone, its next page."""

    text: Annotated[
        Text | None, Field(description='What the pictures should show, in English words: "two cats on a couch".')
    ] = None
    like: Annotated[Id | None, Field(description="The id of a picture: find pictures that look like it.")] = None
    without: Annotated[
        list[Text],
        Field(
            max_length=MOST_ASKED,
            description="Texts that must not be true, each verified as `text` is: what they fit comes last of the "
            "verified hits, or is left out with `min_match`. They need a text or `like`, and a depth of at least 1.",
        ),
    ] = []
    under: Annotated[
        list[Place] | None,
        Field(max_length=100, description='Only below these absolute folders, or patterns as "*/2019/*" or "*.png".'),
    ] = None
    since: Annotated[
        Moment | None,
        Field(description='Only taken then or later: "2024", "2024-05", "2024-05-17", "last week", "3 days ago".'),
    ] = None
    before: Annotated[Moment | None, Field(description="Only taken before this time.")] = None
    taken: Annotated[
        Moment | None, Field(description='Only taken within this time: "2019", "last week", "2024-05..2024-08".')
    ] = None
    top: Annotated[int, Field(ge=1, le=MOST_HITS, description="The most hits of a page.")] = 12
    depth: Annotated[
        int | None,
        Field(
            ge=0,
            le=MOST_DEPTH,
            description="How many candidates the full model verifies: more finds more, and takes longer. 0 verifies "
            "none: fast, ordered by similarity alone. Default: 20, on a GPU 100.",
        ),
    ] = None
    min_match: Annotated[
        float | None, Field(ge=0, le=1, description="Keep only verified hits with at least this match; 0.5 is apt.")
    ] = None
    cursor: Annotated[
        str | None, Field(max_length=100, description="Of the page before, given alone: the next page.")
    ] = None


class LookArguments(_Arguments):
    """The pictures to show."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_LOOKED_AT)]
    size: Annotated[
        int, Field(ge=LEAST_SIDE, le=MOST_SIDE, description="The longest side in pixels; no picture is enlarged.")
    ] = 768


class MatchArguments(_Arguments):
    """Pictures and texts, of which every pair is scored."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_PICTURES)]
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]


class FillArguments(_Arguments):
    """A sentence with masks, and the pictures that fill them."""

    text: Annotated[Text, Field(description='A sentence with one or more `<mask>`: "a <mask> looking out".')]
    ids: Annotated[
        list[Id] | None,
        Field(
            min_length=1,
            max_length=MOST_PICTURES,
            description="The pictures to read the words out of. Without, those of the index that fit best.",
        ),
    ] = None
    top: Annotated[int, Field(ge=1, le=100, description="The most words for each mask.")] = 5
    depth: Annotated[
        int | None, Field(ge=1, le=MOST_DEPTH, description="How many pictures of the index, where no ids are given.")
    ] = None


# Answers


class Hit(BaseModel):
    """A picture. `match` and `similarity` are separate scores; higher is better."""

    rank: Annotated[int, Field(description="The number of the picture on the contact sheet.")]
    id: str
    path: str
    paths: Annotated[list[str], Field(description="All files with this content, `path` first.")]
    match: Annotated[float | None, Field(description="The probability that the text is true of it; null: unverified.")]
    similarity: Annotated[float | None, Field(description="A cosine in [-1, 1], for recall alone.")]
    matches: Annotated[list[float | None], Field(description="The match of each text, where there are several.")]
    against: Annotated[list[float | None], Field(description="The probability of each text of `without`, if verified.")]
    ruled_out: Annotated[bool, Field(description="Whether one of these is probably true.")]
    verified: bool
    taken_at: Annotated[str | None, Field(description="When it was taken, on the clock of the camera.")]
    width: int | None
    height: int | None


class SearchAnswer(BaseModel):
    """A page of hits, best first."""

    hits: list[Hit]
    verified: Annotated[int, Field(description="How many candidates the full model has verified.")]
    best_match: Annotated[
        float | None, Field(description="The highest match of all that were verified and not ruled out.")
    ]
    cursor: Annotated[str | None, Field(description="Leads to the next page; null at the end.")]
    notes: list[str]


class PairScore(BaseModel):
    """The scores of one picture and one text."""

    id: str
    text: str
    match: float | None
    similarity: float | None


class MatchAnswer(BaseModel):
    """The scores, by picture and then by text."""

    scores: list[PairScore]
    notes: list[str]


class Word(BaseModel):
    """A word for a mask."""

    mask: Annotated[int, Field(description="Which `<mask>` of the text, from 0.")]
    rank: int
    token: str
    probability: float | None
    count: Annotated[int, Field(description="How many of the pictures have it as their own most probable word.")]
    images: Annotated[list[str], Field(description="Ids of the pictures that support it most.")]


class FillAnswer(BaseModel):
    """The words, by mask and then by probability."""

    words: list[Word]
    best_match: Annotated[float | None, Field(description="The highest match of the sentence with any picture.")]
    notes: list[str]
