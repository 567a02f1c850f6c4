"""The client of OpenAI asks for vectors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.gallery_server import Served, gallery_served

openai = pytest.importorskip("openai")

TEXTS = ["two cats on a couch", "a bat"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gallery_served(tmp_path_factory.mktemp("openai")) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token) as client:
        yield client


def vectors(answer: Any) -> Any:
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data], np.float32)


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_vectors_are_those_of_the_library(served: Served, client: Any, options: dict[str, str]) -> None:
    given = [*TEXTS, *({"image": url} for url in served.urls), served.ids[0]]
    found = vectors(client.embeddings.create(model="any", input=given, **options))
    expected = np.concatenate([served.model.embed_texts(TEXTS), served.model.embed_images(served.files)])
    assert np.array_equal(found, np.concatenate([expected, expected[2:3]]))
    [one] = client.embeddings.create(model="any", input=TEXTS[0], dimensions=expected.shape[1], **options).data
    assert np.array_equal(np.array(one.embedding, np.float32), expected[0])


def test_models(served: Served, client: Any) -> None:
    [model] = client.models.list().data
    assert model.id == served.model.name and client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError, match="there is no such model"):
        client.models.retrieve("text-embedding-3-small/of another")


def test_a_refusal_is_told_in_words_and_tried_once(served: Served, client: Any) -> None:
    tried: list[int] = []
    client._client.event_hooks = {"response": [lambda answer: tried.append(answer.status_code)]}
    with pytest.raises(openai.UnprocessableEntityError, match="tokens are not read") as caught:
        client.embeddings.create(model="any", input=[[1, 2, 3]])
    assert (caught.value.code, caught.value.param, caught.value.type) == ("invalid", "input", "invalid_request_error")
    assert tried == [422]
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
        client.embeddings.create(model="any", input="a", dimensions=7)
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="another-token-of-a-test") as other,
        pytest.raises(openai.AuthenticationError, match="the token of the server is wanted"),
    ):
        other.models.list()
