"""Hooks of schemathesis: valid requests about pictures of an index, and what every answer has to be.

The document of a server cannot tell which ids its index has, nor which fields exclude each other. Requests that are
meant to be valid are completed here, so that they reach the model. FUZZ_DATA names a file that `fuzz.py` has written.
"""

import atexit
import base64
import json
import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection

DATA = json.loads(Path(os.environ["FUZZ_DATA"]).read_text("utf-8"))
IDS: list[str] = DATA["ids"]
FILES = [Path(name).read_bytes() for name in DATA["files"]]
TEXTS = ("two cats", "a dog in the snow", "a bat, above a pumpkin", "ЖЖЖ \U0001f600", "<mask>", "x" * 10_000)
MOMENTS = ("2024", "2024-05", "2024-05-17", "last week", "3 days ago", "1900")
PLACES = ("/", "*.jpg", DATA["folder"], "/nowhere/*", "**/*cat*")
FOLDERS = ("/", DATA["folder"], str(Path(DATA["folder"]).parent), "/nowhere", "/%FF/_", f"{DATA['folder']}/../")
RANGES = ("bytes=0-0", "bytes=5-", "bytes=-100", "bytes=0-1,5-6", "bytes=999999999-", "lines=1-2")
UNKNOWN = "0" * 64
MOST_DEPTH = 3  # verifying takes most of the time

answers: Counter[str] = Counter()
completed: set[str] = set()  # ids of cases
cursors: list[str] = []  # of the newest searches
following: set[str] = set()  # ids of cases that send a cursor


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Complete a case that is meant to be valid."""
    if not case.meta.generation.mode.is_positive:
        return
    completed.add(case.id)
    body = case.body if isinstance(case.body, dict) else None
    draw = Random(repr((case.path_parameters, case.query, body)))
    if "id" in case.path_parameters:
        case.path_parameters["id"] = draw.choice((*IDS, UNKNOWN))
    operation = case.operation.definition.raw["operationId"]
    if operation == "image" and "Range" in (case.headers or {}):
        case.headers["Range"] = draw.choice(RANGES)
    if operation == "folders" and "under" in case.query:
        case.query["under"] = draw.choice(FOLDERS)
    if "model" in case.path_parameters:
        case.path_parameters["model"] = draw.choice(("demo", "demo", "demo", "another/model"))
    fields = case.query if case.method == "GET" else body
    complete = {"search_by_url": _search, "search": _search, "match": _match, "fill": _fill, "embeddings": _embeddings}
    complete |= {"rerank_v1": _rerank, "rerank_v2": _rerank, "rerank": _rerank, "score_v1": _score, "score": _score}
    if fields is not None and operation in complete:
        for name in [name for name, value in fields.items() if value is None]:
            del fields[name]
        _pictures(fields, draw, is_form=case.media_type == "multipart/form-data")
        complete[operation](fields, draw)
        if "cursor" in fields:
            following.add(case.id)
        if case.media_type == "multipart/form-data" and "images" in fields:
            fields["image"] = [draw.choice(FILES) for _ in fields.pop("images")]


def _pictures(fields: dict[str, Any], draw: Random, *, is_form: bool) -> None:
    """Give pictures that there are, few of them."""
    if "image" in fields:
        there = [draw.choice(FILES) if is_form else draw.choice(IDS) for _ in fields["image"][:3]]
        fields["image"] = there
    if "images" in fields:
        fields["images"] = [
            {"id": draw.choice(IDS)} if draw.random() < 0.6 else {"data": _data_url(draw.choice(FILES))}
            for _ in fields["images"][:3]
        ]


def _data_url(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _text(any_text: str) -> str:
    """Return a text with a word."""
    return f"a {any_text}"[:10_000]


def _search(fields: dict[str, Any], draw: Random) -> None:
    if "cursor" in fields:
        if cursors and draw.random() < 0.3:
            cursor = cursors.pop()
            fields.clear()
            fields["cursor"] = cursor
            return
        del fields["cursor"]
    pictures = bool(fields.get("image") or fields.get("images"))
    if not pictures or "text" in fields:
        text = fields.get("text", "")
        several = [_text(one) for one in text[:2]] if isinstance(text, list) else []
        fields["text"] = several or draw.choice((_text(str(text)), *TEXTS))
    fields["depth"] = min(int(fields.get("depth", MOST_DEPTH)), MOST_DEPTH)
    verifies = "text" in fields and fields["depth"] > 0
    for name, fits in (("min_match", verifies), ("budget_s", verifies), ("min_similarity", "text" not in fields)):
        if not fits:
            fields.pop(name, None)
    if fields["depth"] == 0:
        fields.pop("not", None)
    if "not" in fields:
        fields["not"] = [draw.choice((_text(text), *TEXTS)) for text in fields["not"][:2]]
    if "weights" in fields:
        texts = fields.get("text", [])
        given = [*(texts if isinstance(texts, list) else [texts]), *fields.get("images", ()), *fields.get("image", ())]
        fields["weights"] = [draw.choice((0.5, 1, 3)) for _ in given]
    times = [name for name in ("taken", "since", "before") if name in fields]
    for name in times:
        del fields[name]
    if times:
        fields[draw.choice(times)] = draw.choice(MOMENTS)
    for name in ("under", "not_under"):
        if name in fields:
            fields[name] = [draw.choice(PLACES) for _ in fields[name][:3] or [""]]


def _match(fields: dict[str, Any], draw: Random) -> None:
    fields["texts"] = [draw.choice((_text(text), *TEXTS)) for text in fields["texts"][:3]]
    if not fields.get("image") and not fields.get("images"):
        fields["images"] = [{"id": draw.choice(IDS)}]


def _fill(fields: dict[str, Any], draw: Random) -> None:
    fields["text"] = draw.choice(("a <mask> looking out", "<mask>", "two <mask> on a <mask>", "Ж <mask> x"))
    if fields.get("image") or fields.get("images"):
        fields.pop("depth", None)
    else:
        fields["depth"] = min(int(fields.get("depth", MOST_DEPTH)), MOST_DEPTH)


# In the forms of other services


def _foreign_text(draw: Random) -> Any:
    text = draw.choice(TEXTS)
    return draw.choice((text, {"text": text}, {"content": [{"type": "text", "text": text}]}))


def _foreign_picture(draw: Random) -> Any:
    id, content = draw.choice(IDS), draw.choice(FILES)
    url = _data_url(content)
    part = {"type": "image_url", "image_url": {"url": url}}
    return draw.choice((id, url, {"image": id}, {"image": url.partition(",")[2]}, part, {"content": [part]}))


def _foreign_pictures(draw: Random) -> list[Any]:
    return [_foreign_picture(draw) for _ in range(draw.randint(1, 3))]


def _rerank(fields: dict[str, Any], draw: Random) -> None:
    if "texts" in fields:
        fields["query"] = draw.choice(TEXTS)
        fields["texts"] = [draw.choice((draw.choice(IDS), _data_url(draw.choice(FILES)))) for _ in fields["texts"][:3]]
    else:
        fields["query"], fields["documents"] = _foreign_text(draw), _foreign_pictures(draw)


def _score(fields: dict[str, Any], draw: Random) -> None:
    pictures = _foreign_pictures(draw)
    texts = [_foreign_text(draw) for _ in pictures]
    sides = draw.choice(((texts, pictures), (pictures, texts), (texts[0], pictures), (pictures[0], texts)))
    fields["text_1"], fields["text_2"] = sides


def _embeddings(fields: dict[str, Any], draw: Random) -> None:
    fields["input"] = draw.choice((_foreign_text(draw), [*_foreign_pictures(draw), _foreign_text(draw)]))
    fields.pop("dimensions", None)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count an answer, and keep its cursor."""
    name = case.operation.definition.raw["operationId"]
    answers[f"{name} {response.status_code}"] += 1
    if case.id in following:
        answers[f"cursor {response.status_code}"] += 1
    if name in ("search", "search_by_url") and response.status_code == 200 and (found := response.json()["cursor"]):
        cursors.append(found)
        del cursors[:-4]


@schemathesis.check
def completed_cases_are_answered(ctx: Any, response: Any, case: Any) -> None:
    """A valid request succeeds; an id may be unknown, a place none of the index, and a range none of the file.

    A search of another client may end one that is kept, so that its cursor leads nowhere.
    """
    allowed = (200, 410) if case.id in following else (200, 204, 206, 404, 416)
    if case.id in completed and response.status_code not in allowed:
        raise AssertionError(f"a valid request was answered with {response.status_code}: {response.text}")


@schemathesis.check
def invalid_json_is_refused(ctx: Any, response: Any, case: Any) -> None:
    """An invalid request is refused. The fields of a form are texts, so that what is no text becomes valid there."""
    if case.media_type != "multipart/form-data":
        negative_data_rejection(ctx, response, case)


@schemathesis.check
def failures_have_one_form(ctx: Any, response: Any, case: Any) -> None:
    """Every failure is {"error": {"code", "message"}}; on the paths of other services, that has a type and a param. The
    answer to a HEAD has no body."""
    if response.status_code < 400 or response.request.method == "HEAD":
        return
    error = response.json()["error"]
    more = {"type", "param"} if case.operation.path.startswith(("/v1/", "/v2/", "/rerank", "/score")) else set()
    if (
        set(response.json()) != {"error"}
        or set(error) != {"code", "message", *more}
        or not error["code"].strip()
        or not error["message"].strip()
    ):
        raise AssertionError(f"not the form of a failure: {response.text}")


@atexit.register
def _write_answers() -> None:
    Path(os.environ["FUZZ_ANSWERS"]).write_text(json.dumps(answers), "utf-8")
