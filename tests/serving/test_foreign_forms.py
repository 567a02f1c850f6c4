"""A real server asked in the forms of other services, by plain HTTP: the numbers are those of the library."""

import base64
import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

from tests.gallery_server import Served, gallery_served

pytestmark = pytest.mark.process

TEXT = "two cats on a couch"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gallery_served(tmp_path_factory.mktemp("foreign")) as served:
        yield served


def ask(served: Served, path: str, token: str | None = None, **fields: Any) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token or served.token}"}
    body = json.dumps(fields).encode() if fields else None
    request = urllib.request.Request(f"{served.url}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def as_given(served: Served) -> list[Any]:
    """The pictures, each in another form."""
    one, two, three, four, _ = served.urls
    bare = two.partition(",")[2]
    part = {"type": "image_url", "image_url": {"url": three}}
    return [one, {"image": bare}, part, {"content": [{"image": four}]}, served.ids[4]]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank(served: Served, path: str) -> None:
    expected = served.matches(TEXT)
    results = ask(served, path, model="x", query=TEXT, documents=as_given(served))["results"]
    assert {one["index"]: one["relevance_score"] for one in results} == dict(enumerate(expected))
    assert [one["index"] for one in results] == sorted(range(5), key=lambda place: -expected[place])
    texts = ask(served, path, query=TEXT, texts=served.ids)
    assert texts == [{"index": one["index"], "score": one["relevance_score"]} for one in results]


def test_notes_come_with_the_answer(served: Served) -> None:
    answer = ask(served, "/v1/rerank", query="two cats " * 200, documents=served.ids)
    assert any("longer than the model reads" in note for note in answer["meta"]["warnings"])


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_score(served: Served, path: str) -> None:
    answer = ask(served, path, text_1=TEXT, text_2=as_given(served))
    assert [one["score"] for one in answer["data"]] == served.matches(TEXT)
    texts = [TEXT, "a bat", "a bee", "a bat", "a dog"]
    answer = ask(served, path, text_1=texts, text_2={"content": [{"image": url} for url in served.urls]})
    expected = [served.matches(text, [file])[0] for text, file in zip(texts, served.files, strict=True)]
    assert [one["score"] for one in answer["data"]] == expected


def test_embeddings_to_the_last_bit(served: Served) -> None:
    texts = [TEXT, "a bat", *(f"{number} cats" for number in range(40))]  # more than one slice
    expected = served.model.embed_texts(texts).astype("<f4").tobytes()
    given: list[Any] = [*texts, *as_given(served)]
    expected += served.model.embed_images(served.files).astype("<f4").tobytes()
    packed = ask(served, "/v1/embeddings", input=given, encoding_format="base64")["data"]
    assert b"".join(base64.b64decode(one["embedding"]) for one in packed) == expected
    floats = ask(served, "/v1/embeddings", input=given)["data"]
    vectors = np.array([one["embedding"] for one in floats], np.float32)
    assert vectors.astype("<f4").tobytes() == expected
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_models(served: Served) -> None:
    [model] = ask(served, "/v1/models")["data"]
    assert model["id"] == served.model.name == ask(served, "/v1/models/demo")["id"]
    assert ask(served, "/v1/embeddings", model="x", input="a")["model"] == model["id"]


def test_failures(served: Served) -> None:
    for token, fields, status in (("wrong" * 5, {"input": "a"}, 401), (None, {"input": [1]}, 422)):
        with pytest.raises(HTTPError) as caught:
            ask(served, "/v1/embeddings", token, **fields)
        with caught.value as error:
            assert error.code == status
            assert set(json.load(error)["error"]) == {"message", "type", "param", "code"}
