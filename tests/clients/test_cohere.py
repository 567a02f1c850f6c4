"""The clients of Cohere order pictures by a text."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gallery_server import Served, gallery_served

cohere = pytest.importorskip("cohere")
httpx = pytest.importorskip("httpx")

TEXT = "two cats on a couch"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gallery_served(tmp_path_factory.mktemp("cohere")) as served:
        yield served


class Client:
    """A client, and the statuses of the answers that it has got."""

    def __init__(self, kind: Any, served: Served) -> None:
        self.tried: list[int] = []
        hooks = {"response": [lambda answer: self.tried.append(answer.status_code)]}
        self.http = httpx.Client(event_hooks=hooks, timeout=60)
        self.asks = kind(base_url=served.url, api_key=served.token, httpx_client=self.http)


@pytest.fixture(params=["Client", "ClientV2"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[Client]:
    client = Client(getattr(cohere, request.param), served)
    with client.http:
        yield client


def test_scores_are_those_of_the_library(served: Served, client: Client) -> None:
    expected = served.matches(TEXT)
    forms = (served.urls, served.ids, [{"image": url} for url in served.urls])
    for documents in forms:
        answer = client.asks.rerank(model="any", query=TEXT, documents=documents)
        assert {one.index: one.relevance_score for one in answer.results} == dict(enumerate(expected))
        scores = [one.relevance_score for one in answer.results]
        assert scores == sorted(scores, reverse=True) and answer.id and answer.meta.api_version.version in ("1", "2")
    [best] = client.asks.rerank(model="any", query=TEXT, documents=served.ids, top_n=1).results
    assert best.relevance_score == max(expected)


def test_documents_come_back(served: Served) -> None:
    client = Client(cohere.Client, served)
    with client.http:
        answer = client.asks.rerank(model="any", query=TEXT, documents=served.ids, return_documents=True)
    assert [one.document.text for one in answer.results] == [served.ids[one.index] for one in answer.results]


def test_a_refusal_is_told_in_words_and_tried_once(served: Served, client: Client) -> None:
    with pytest.raises(cohere.UnprocessableEntityError) as caught:
        client.asks.rerank(model="any", query=TEXT, documents=[served.ids[0], "a text"])
    assert "documents[1] is a text, but bt scores pictures" in str(caught.value)
    assert client.tried == [422]
