"""litellm orders pictures and makes vectors, as the client of several services."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.gallery_server import Served, gallery_served

TEXT = "two cats on a couch"


@pytest.fixture(scope="module")
def litellm() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches one at import
        yield pytest.importorskip("litellm")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gallery_served(tmp_path_factory.mktemp("litellm")) as served:
        yield served


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the warnings are of litellm


def ranked(litellm: Any, served: Served, service: str, **options: Any) -> Any:
    options = {"documents": served.ids, **options}
    return litellm.rerank(
        model=f"{service}/any", query=TEXT, api_base=served.url, api_key=served.token, num_retries=0, **options
    ).results


@pytest.mark.parametrize("service", ["jina_ai", "cohere", "hosted_vllm"])
def test_scores_are_those_of_the_library(litellm: Any, served: Served, service: str) -> None:
    expected = served.matches(TEXT)
    for documents in (served.ids, served.urls, [{"image": url} for url in served.urls]):
        results = ranked(litellm, served, service, documents=documents)
        assert {one["index"]: one["relevance_score"] for one in results} == dict(enumerate(expected))
    results = ranked(litellm, served, service)  # it asks for the documents unasked
    assert [one["document"]["text"] for one in results] == [served.ids[one["index"]] for one in results]
    [best] = ranked(litellm, served, service, top_n=1)
    assert best["relevance_score"] == max(expected)


def test_infinity_without_documents(litellm: Any, served: Served) -> None:
    results = ranked(litellm, served, "infinity", return_documents=False)
    assert {one["index"]: one["relevance_score"] for one in results} == dict(enumerate(served.matches(TEXT)))


def test_vectors_are_those_of_the_library(litellm: Any, served: Served) -> None:
    answer = litellm.embedding(
        model="openai/any", input=[TEXT, *served.urls], api_base=f"{served.url}/v1", api_key=served.token
    )
    found = np.array([one["embedding"] for one in answer.data], np.float32)
    expected = np.concatenate([served.model.embed_texts([TEXT]), served.model.embed_images(served.files)])
    assert np.array_equal(found, expected)


def test_a_refusal_is_told_in_words(litellm: Any, served: Served) -> None:
    with pytest.raises(litellm.BadRequestError, match="is a text, but bt scores pictures"):
        ranked(litellm, served, "cohere", documents=["a text"])
