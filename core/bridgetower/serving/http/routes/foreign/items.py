"""Texts and pictures in the forms of other services.

A string that is a data URL, or the id of a picture of the index, is a picture; any other is a text. An object tells by
its only field which of the two it is: {"text": ...}, {"image": ...}, {"image_url": {"url": ...}}; its "content" is a
list of such objects.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridgetower.serving.engine import Engine
from bridgetower.serving.http.bodies import (
    DATA_URL,
    GivenPicture,
    content_of,
    from_base64,
    require_size,
)
from bridgetower.serving.http.errors import Problem, problem_of, unusable
from bridgetower.serving.http.routes.pictures import EnginePicture, engine_pictures
from bridgetower.serving.indexed import NoPicture
from bridgetower.serving.limits import ID, LONGEST_TEXT, MOST_PICTURES, MOST_TEXTS

_ID = re.compile(ID)
KINDS = ("text", "image", "image_url")
MOST_ITEMS = min(MOST_PICTURES, MOST_TEXTS)
_FORMS = "data:image/jpeg;base64,..., an id of the index, or an object with image or image_url; no other URL is opened"

Item = str | GivenPicture


def items_of(given: Any, field: str) -> list[Item]:
    """Return the texts and pictures of a field that may have one or several. Raises Problem."""
    if isinstance(given, dict) and "content" in given:
        given = _content(given, field, field)
    if not isinstance(given, list):
        return [_item(given, field, field)]
    if not given:
        raise unusable(f"{field} is empty: give at least one", field)
    if len(given) > MOST_ITEMS:
        raise unusable(f"{field}: at most {MOST_ITEMS} can be given", field)
    return [_item(one, f"{field}[{place}]", field) for place, one in enumerate(given)]


def text_of(given: Any, field: str) -> str:
    """Return the text of a field. Raises Problem."""
    item = _item(given, field, field)
    if not isinstance(item, str):
        raise unusable(f"{field} is a picture: give a text, which is scored with the pictures", field)
    return item


def pictures_of(given: Any, field: str) -> list[GivenPicture]:
    """Return the pictures of a field that has no texts. Raises Problem."""
    return [_picture(item, f"{field}[{place}]", field) for place, item in enumerate(items_of(given, field))]


def ready(engine: Engine, pictures: Iterable[GivenPicture], field: str) -> list[EnginePicture]:
    """Return pictures as the engine takes them. Raises Problem, which tells the place of one that is unknown."""
    found: list[EnginePicture] = []
    for picture in pictures:
        try:
            found += engine_pictures(engine, [picture])
        except NoPicture as error:
            problem = problem_of(error)
            raise Problem(problem.status, problem.code, f"{picture.name}: {problem.message}", param=field) from error
    return found


def _content(given: dict[str, Any], name: str, field: str) -> list[Any]:
    parts = given["content"]
    if set(given) != {"content"} or not isinstance(parts, list):
        raise unusable(f"{name}: content is a list of texts or pictures, and stands alone", field)
    return parts


def _item(given: Any, name: str, field: str) -> Item:
    """Return a text or a picture; `name` is its place in messages."""
    if isinstance(given, dict) and "content" in given:
        parts = _content(given, name, field)
        if len(parts) != 1:
            raise unusable(f"{name}: its content is one text or one picture", field)
        [given] = parts
    if isinstance(given, str):
        is_picture = DATA_URL.match(given) or _ID.fullmatch(given)
        return _referred(given, name, field) if is_picture else _short(given, name, field)
    if not isinstance(given, dict):
        raise unusable(f"{name}: a text or a picture is wanted; tokens are not read", field)
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1 or set(given) - {*kinds, "type"} or given.get("type", kinds[0]) != kinds[0]:
        raise unusable(f"{name}: an object has one of {', '.join(KINDS)}, and nothing else but its type", field)
    [kind] = kinds
    value = given[kind]
    if kind == "image_url" and isinstance(value, dict) and not set(value) - {"url", "detail"}:
        value = value.get("url")
    if not isinstance(value, str):
        raise unusable(f"{name}: {kind} is a string", field)
    return _short(value, name, field) if kind == "text" else _referred(value, name, field)


def _referred(reference: str, name: str, field: str) -> GivenPicture:
    """Return the picture of a data URL, an id of the index or bare base64."""
    path = Path(name)  # for messages; no file of this name is opened
    if _ID.fullmatch(reference):
        return GivenPicture(name, path, id=reference)
    try:
        content = content_of(reference, name) if ":" in reference[:20] else from_base64(reference, name)
        picture = GivenPicture(name, path, content=content)
        require_size(picture)
    except Problem as problem:
        problem.param = field
        raise
    return picture


def _short(text: str, name: str, field: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise unusable(f"{name}: a text has at most {LONGEST_TEXT} characters", field)
    return text


def _picture(item: Item, name: str, field: str) -> GivenPicture:
    if isinstance(item, str):
        raise unusable(f"{name} is a text, but bt scores pictures: give {_FORMS}", field)
    return item
