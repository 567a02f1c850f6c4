"""Requests in the forms of Jina, Cohere, text-embeddings-inference, vLLM and OpenAI: answers, refusals, failures."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from bridgetower import Model
from bridgetower.errors import ModelError
from bridgetower.records import Head
from bridgetower.serving.engine import Engine, Options
from bridgetower.serving.http import bodies
from bridgetower.serving.http.config import Config
from bridgetower.serving.request_queue import RequestQueue
from tests.fakes import FakeEncoder
from tests.unit.serving.http_server import TOKEN, Server, colours_served, data_url, png, serving

RERANK = ("/v1/rerank", "/v2/rerank", "/rerank")
UNKNOWN = "0" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with colours_served(tmp_path_factory.mktemp("foreign")) as server:
        yield server


def part(colour: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(png(colour)), "detail": "low"}}


def bare(colour: str) -> str:
    return base64.b64encode(png(colour)).decode()


def asked(server: Server, path: str, **fields: Any) -> Any:
    answer = server.client.post(path, json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: Any, status: int, code: str, param: str | None = None) -> str:
    """The message of a failure in the form of OpenAI."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    kinds = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
    assert error["type"] == kinds.get(status, "invalid_request_error")
    message: str = error["message"]
    return message


def match_of(server: Server, colour: str, text: str) -> float:
    [score] = server.engine.fake.match([png(colour)], [text])
    assert score.match is not None
    return score.match


# Rerank


def pictures(server: Server) -> dict[str, Any]:
    """Pictures in each form, by the colour that they have."""
    return {
        "blue": data_url(png("blue")),
        "red": server.ids["red"],
        "green": {"image": data_url(png("green"))},
        "white": {"image": bare("white")},
    }


@pytest.mark.parametrize("path", RERANK)
def test_rerank(server: Server, path: str) -> None:
    documents = pictures(server)
    answer = asked(server, path, model="any/name", query="red", documents=list(documents.values()))
    expected = {place: match_of(server, colour, "red") for place, colour in enumerate(documents)}
    found = {one["index"]: one["relevance_score"] for one in answer["results"]}
    assert found == expected and answer["results"][0]["index"] == 1
    assert sorted(found.values(), reverse=True) == list(found.values())
    assert answer["model"] == "fake" and answer["id"].startswith("rerank-")
    assert answer["meta"] == {"api_version": {"version": "2" if "v2" in path else "1"}, "warnings": []}
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert all(set(one) == {"index", "relevance_score"} for one in answer["results"])


@pytest.mark.parametrize(
    "query",
    ["red", {"text": "red"}, {"type": "text", "text": "red"}, {"content": [{"type": "text", "text": "red"}]}],
)
def test_forms_of_the_query(server: Server, query: Any) -> None:
    answer = asked(server, "/v1/rerank", query=query, documents=list(pictures(server).values()), top_n=1)
    assert [one["index"] for one in answer["results"]] == [1]


def test_forms_of_documents(server: Server) -> None:
    forms = [part("red"), {"content": [part("red")]}, {"image_url": data_url(png())}, {"image": server.ids["red"]}]
    forms += [{"image_url": {"url": server.ids["red"]}}, {"type": "image", "image": bare("red")}]
    for documents in (forms, {"content": [part("red")]}, data_url(png()), {"image": bare("red")}):
        results = asked(server, "/v1/rerank", query="red", documents=documents)["results"]
        assert {one["relevance_score"] for one in results} == {match_of(server, "red", "red")}
        assert [one["index"] for one in results] == list(range(len(forms) if documents is forms else 1))  # ties


def test_documents_come_back_as_they_were_sent(server: Server) -> None:
    documents = [data_url(png("blue")), server.ids["red"], part("green"), {"content": [part("white")]}]
    for query in ("red", "blue", "green"):
        answer = asked(server, "/v1/rerank", query=query, documents=documents, return_documents=True, top_n=10)
        for one in answer["results"]:
            sent = documents[one["index"]]
            assert one["document"] == ({"text": sent} if isinstance(sent, str) else {"text": "", **sent})
        assert len(answer["results"]) == 4


def test_order_of_matches_that_round_to_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sure(FakeEncoder):
        def match(self, *rest: Any) -> Any:
            return 200 + 100 * super().match(*rest) * np.array([0, 1], np.float32) - np.array([400, 0], np.float32)

    fake = Sure()
    monkeypatch.setattr(server.engine, "fake", Model.from_parts(fake, fake))
    texts = [data_url(png(colour)) for colour in ("green", "red", "red")]
    found = asked(server, "/rerank", query="red", texts=texts, raw_scores=True)
    assert [one["index"] for one in found] == [1, 2, 0]
    [first, second, _] = asked(server, "/v1/rerank", query="red", documents=texts)["results"]
    assert first["relevance_score"] == second["relevance_score"] == 1.0


@pytest.mark.parametrize("path", RERANK)
def test_texts_are_answered_as_by_tei(server: Server, path: str) -> None:
    texts = [data_url(png("blue")), server.ids["red"]]
    answer = asked(server, path, query="red", texts=texts, truncate=True)
    assert answer == [
        {"index": 1, "score": match_of(server, "red", "red")},
        {"index": 0, "score": match_of(server, "blue", "red")},
    ]
    [first, _] = asked(server, path, query="red", texts=texts, raw_scores=True, return_text=True)
    [score] = server.engine.fake.match([png()], ["red"])
    assert score.itm_logits is not None
    assert first == {"index": 1, "score": score.itm_logits[1] - score.itm_logits[0], "text": texts[1]}


# Score


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_score(server: Server, path: str) -> None:
    sides: list[tuple[Any, Any, list[tuple[str, str]]]] = [
        ("red", data_url(png()), [("red", "red")]),
        ("red", [data_url(png()), server.ids["blue"]], [("red", "red"), ("blue", "red")]),
        ("red", {"content": [part("red"), part("blue")]}, [("red", "red"), ("blue", "red")]),
        ({"content": [part("red")]}, ["red", "blue"], [("red", "red"), ("red", "blue")]),
        (["red", "blue", "red"], [part("red"), part("red"), part("blue")],
         [("red", "red"), ("red", "blue"), ("blue", "red")]),
        ([part("red"), part("blue")], ["red", {"text": "blue"}], [("red", "red"), ("blue", "blue")]),
    ]  # fmt: skip
    for first, second, pairs in sides:
        answer = asked(server, path, model="x", text_1=first, text_2=second)
        assert answer["data"] == [
            {"index": place, "object": "score", "score": match_of(server, *pair)} for place, pair in enumerate(pairs)
        ]
        assert (answer["object"], answer["model"]) == ("list", "fake") and answer["created"] > 1_700_000_000


def test_pairs_alone_are_scored(server: Server) -> None:
    before = server.engine.fake.judge._part.matched  # type: ignore[attr-defined]  # the FakeEncoder
    colours = ["red", "blue", "green", "white"]
    asked(server, "/score", text_1=colours, text_2=[part(colour) for colour in colours])
    assert server.engine.fake.judge._part.matched - before == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("red", "blue", "both texts"),
        (part("red"), part("blue"), "both pictures"),
        (["red", part("red")], [part("red"), "blue"], "text_1 has texts and pictures"),
        (["red", "blue"], [part("red")] * 3, "text_1 has 2, text_2 3"),
        (["red", "blue"], part("red"), "text_1 has 2, text_2 1"),
        ([], part("red"), "text_1 is empty"),
    ],
)
def test_sides_that_are_no_pairs(server: Server, first: Any, second: Any, words: str) -> None:
    answer = server.client.post("/score", json={"text_1": first, "text_2": second})
    assert words in refused(answer, 422, "invalid", answer.json()["error"]["param"])
    assert answer.json()["error"]["param"] in ("text_1", "text_2")


# Embeddings


def test_embeddings(server: Server) -> None:
    given = ["red", {"image": bare("blue")}, server.ids["green"], {"text": "blue"}, part("white"), "red"]
    answer = asked(server, "/v1/embeddings", model="any", input=given, dimensions=3)
    model = server.engine.fake
    texts = model.embed_texts(["red", "blue", "red"])
    images = model.embed_images([png("blue"), png("green"), png("white")])
    expected = np.stack([texts[0], images[0], images[1], texts[1], images[2], texts[2]])
    assert [one["index"] for one in answer["data"]] == list(range(6))
    assert np.array_equal(np.array([one["embedding"] for one in answer["data"]], np.float32), expected)
    assert (answer["object"], answer["model"], answer["data"][0]["object"]) == ("list", "fake", "embedding")
    packed = asked(server, "/v1/embeddings", input=given, encoding_format="base64")["data"]
    assert b"".join(base64.b64decode(one["embedding"]) for one in packed) == expected.astype("<f4").tobytes()
    [one] = asked(server, "/v1/embeddings", input="red", encoding_format=None)["data"]
    assert one["embedding"] == texts[0].tolist()


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": "red", "dimensions": 4}, "dimensions", "3 dimensions"),
        ({"input": [1, 2]}, "input", "input[0]: a text or a picture is wanted; tokens are not read"),
        ({"input": [[1, 2]]}, "input", "tokens are not read"),
        ({"input": []}, "input", "input is empty"),
        ({"input": ["red"] * 101}, "input", "at most 100"),
        ({"input": "a" * 10_001}, "input", "10000 characters"),
        ({"input": " "}, None, "the text is empty"),
        ({"input": "red", "encoding_format": "binary"}, "encoding_format", "encoding_format"),
        ({"input": "red", "late_chunking": True}, "late_chunking", "there is no field 'late_chunking'"),
        ({}, "input", "input"),
    ],
)
def test_unusable_embeddings(server: Server, fields: dict[str, Any], param: str | None, words: str) -> None:
    assert words in refused(server.client.post("/v1/embeddings", json=fields), 422, "invalid", param)


def test_models(server: Server) -> None:
    [model] = server.client.get("/v1/models").json()["data"]
    created = server.engine.summary().created_at
    assert model == {"id": "fake", "object": "model", "created": created, "owned_by": "bt"}
    assert server.client.get("/v1/models/fake").json() == model
    refused(server.client.get("/v1/models/other/name"), 404, "model_not_found")
    answer = server.client.delete("/v1/models/a/b")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


# Refusals


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("a text", "documents[1] is a text, but bt scores pictures"),
        ({"text": "a text"}, "documents[1] is a text, but bt scores pictures"),
        ({"content": [{"type": "text", "text": "a"}]}, "documents[1] is a text"),
        ("http://127.0.0.1/a.jpg", "no other URL is opened"),
        ({"image": "http://127.0.0.1/a.jpg"}, "documents[1]: data is a URL as"),
        ({"image_url": {"url": "file:///etc/passwd"}}, "no other URL is opened"),
        ({"image": "../../etc/passwd"}, "documents[1]: its data is no base64"),
        ({"image": "data:image/png;base64,%%%"}, "documents[1]: its data is no base64"),
        ({"image": 1}, "documents[1]: image is a string"),
        ({"image_url": {"url": 1}}, "image_url is a string"),
        ({"image_url": {"path": "/etc"}}, "image_url is a string"),
        ({"image": bare("red"), "text": "and more"}, "one of text, image, image_url"),
        ({"image": bare("red"), "caption": "and more"}, "nothing else but its type"),
        ({"type": "image_url", "image": bare("red")}, "nothing else but its type"),
        ({}, "one of text, image, image_url"),
        ({"content": [part("red"), part("red")]}, "documents[1]: its content is one"),
        ({"content": "red"}, "content is a list"),
        ({"content": [{"content": [part("red")]}]}, "one of text, image, image_url"),
        (5, "documents[1]: a text or a picture is wanted"),
        (None, "documents[1]: a text or a picture is wanted"),
    ],
)
def test_documents_that_are_no_pictures(server: Server, document: Any, words: str) -> None:
    fields = {"query": "red", "documents": [server.ids["red"], document]}
    answer = server.client.post("/v1/rerank", json=fields)
    assert words in refused(answer, 422, "invalid", "documents")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"query": part("red")}, "query", "query is a picture"),
        ({"query": data_url(png())}, "query", "query is a picture"),
        ({"query": ["red"]}, "query", "query: a text or a picture is wanted"),
        ({"documents": []}, "documents", "documents is empty"),
        ({"documents": [UNKNOWN] * 101}, "documents", "at most 100"),
        ({"top_n": 0}, "top_n", "top_n"),
        ({"top_n": "1"}, "top_n", "top_n"),
        ({"relevant_spans": {}}, "relevant_spans", "there is no field"),
        ({"texts": ["a"]}, "documents", "there is no field 'documents'"),
    ],
)
def test_unusable_reranks(server: Server, fields: dict[str, Any], param: str, words: str) -> None:
    given = {"query": "red", "documents": [server.ids["red"]], **fields}
    assert words in refused(server.client.post("/v1/rerank", json=given), 422, "invalid", param)


def test_a_text_in_texts_is_refused(server: Server) -> None:
    answer = server.client.post("/rerank", json={"query": "red", "texts": [server.ids["red"], "a text"]})
    assert "texts[1] is a text" in refused(answer, 422, "invalid", "texts")


def test_pictures_that_are_not_there_or_cannot_be_read(server: Server) -> None:
    for path, fields, name in (
        ("/v1/rerank", {"query": "red", "documents": [part("red"), UNKNOWN]}, "documents"),
        ("/score", {"text_1": "red", "text_2": [part("red"), UNKNOWN]}, "text_2"),
        ("/v1/embeddings", {"input": ["red", UNKNOWN]}, "input"),
    ):
        assert refused(server.client.post(path, json=fields), 404, "not_found", name).startswith(f"{name}[1]: ")
        broken = {**fields, name: ["red" if name == "input" else part("red"), data_url(b"no picture")]}
        message = refused(server.client.post(path, json=broken), 422, "unreadable_picture")
        assert message.startswith(f"{name}[1]: ")


def test_ignored_fields(server: Server) -> None:
    documents = [server.ids["red"]]
    for name in ("max_tokens_per_doc", "max_chunks_per_doc", "priority", "user", "truncation", "rank_fields"):
        assert asked(server, "/v1/rerank", query="red", documents=documents, **{name: ["x", 1]})["results"]
    assert asked(server, "/v1/embeddings", input="red", user="me", task="x", normalized=True)["data"]
    nulls = dict.fromkeys(("model", "top_n", "return_documents", "user"))
    assert asked(server, "/v1/rerank", query="red", documents=documents, **nulls)["results"]


def test_limits(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_PICTURE", 50)
    fields = {"query": "red", "documents": [data_url(png())]}
    assert "documents[0]" in refused(server.client.post("/v1/rerank", json=fields), 413, "too_large", "documents")
    monkeypatch.setattr(bodies, "MOST_BODY", 10)
    refused(server.client.post("/v1/rerank", json=fields), 413, "too_large")
    monkeypatch.setattr(bodies, "_ROOM", 5)
    monkeypatch.setattr(bodies, "MOST_BODY", 10_000)
    answer = server.client.post("/v1/embeddings", json={"input": "red"})
    refused(answer, 429, "busy")
    assert answer.headers["retry-after"] == "5"


# Failures


def test_failures_before_a_route_have_the_form_of_openai(server: Server) -> None:
    refused(server.client.get("/v1/models", headers={"Host": "evil.example"}), 421, "misdirected")
    refused(server.client.get("/v1/models", headers={"Origin": "https://evil.example"}), 403, "cross_origin")
    refused(server.client.get("/v1/models", headers={"X": "x" * 33_000}), 431, "too_large")
    refused(server.client.get("/v1/chat/completions"), 404, "not_found")
    refused(server.client.get("/score"), 405, "method_not_allowed")
    for path in (*RERANK, "/score", "/v1/score", "/v1/embeddings"):
        headers = {"Content-Type": "application/json"}
        refused(server.client.post(path, content=b"{", headers=headers), 400, "bad_request")
        refused(server.client.post(path, content=b"[]", headers=headers), 422, "invalid")
        refused(server.client.post(path, data={"query": "red"}), 415, "unsupported_media_type")
        compressed = {**headers, "Content-Encoding": "gzip"}
        refused(server.client.post(path, content=b"{}", headers=compressed), 415, "unsupported_media_type")
    with serving(server.engine, Config("0.0.0.0", token=TOKEN, names=("photos.example",))) as client:
        refused(client.get("/v1/models", headers={"Host": "photos.example"}), 401, "no_token")
        headers = {"Host": "photos.example", "Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/models", headers=headers).status_code == 200
    native = server.client.post("/search", content=b"{", headers={"Content-Type": "application/json"})
    assert set(native.json()["error"]) == {"code", "message"}


def test_a_full_queue_asks_to_wait_for_seconds(server: Server) -> None:
    queue = RequestQueue(running=1, waiting=0)
    with serving(server.engine, queue=queue) as client:
        go = Event()
        running = queue.submit(go.wait)
        answer = client.post("/v1/embeddings", json={"input": "red"})
        refused(answer, 429, "busy")
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        go.set()
        running.result(10)
        queue.drain()
        answer = client.post("/v1/embeddings", json={"input": "red"})
        refused(answer, 503, "draining")


def test_a_fault_of_the_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ModelError("/home/me/model is not there")

    monkeypatch.setattr(server.engine, "_model", absent)
    answer = server.client.post("/v1/embeddings", json={"input": "red"})
    assert "/home" not in refused(answer, 503, "model")
    assert answer.headers["retry-after"] == "5"  # a client obeys, and asks twice more


def test_a_defect_tells_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(server.engine, "embed_texts", broken)
    assert "secret" not in refused(server.client.post("/v1/embeddings", json={"input": "red"}), 500, "defect")


@pytest.mark.parametrize(
    ("head", "path", "fields"),
    [
        (Head.ITC, "/v1/rerank", {"query": "red", "documents": [data_url(png())]}),
        (Head.ITC, "/score", {"text_1": "red", "text_2": data_url(png())}),
        (Head.ITM, "/v1/embeddings", {"input": "red"}),
        (Head.ITM, "/v1/embeddings", {"input": data_url(png())}),
    ],
)
def test_a_model_without_the_head(
    server: Server, monkeypatch: pytest.MonkeyPatch, head: Head, path: str, fields: dict[str, Any]
) -> None:
    fake = FakeEncoder(frozenset({head}))
    model = Model.from_parts(fake if head == Head.ITC else None, fake)
    monkeypatch.setattr(server.engine, "fake", model)
    refused(server.client.post(path, json=fields), 422, "no_head")


def test_no_index(tmp_path: Path) -> None:
    engine = Engine(Options(tmp_path / "none"))
    with serving(engine) as client:
        refused(client.get("/v1/models"), 503, "no_index")
        refused(client.post("/v1/embeddings", json={"input": "red"}), 503, "index")
    engine.close()


# The document and the page


def test_document(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    foreign = {path for path in document["paths"] if path.startswith("/v") or path in ("/rerank", "/score")}
    assert foreign == {*RERANK, "/score", "/v1/score", "/v1/embeddings", "/v1/models", "/v1/models/{model}"}
    for path, verbs in document["paths"].items():
        for route in verbs.values():
            failure = json.dumps(route["responses"]["401"])
            assert ("/ForeignFailure" in failure) == (path in foreign)
            if path in foreign and "post" in verbs:
                assert {"400", "404", "408", "413", "415", "422", "429"} <= set(route["responses"])


def test_page_names_every_field(server: Server) -> None:
    page = (Path(__file__).parents[3] / "docs" / "clients.md").read_text("utf-8")
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    for kind in ("RerankFields", "RerankTextsFields", "ScoreFields", "EmbeddingFields"):
        assert [name for name in schemas[kind]["properties"] if f"`{name}`" not in page] == []
