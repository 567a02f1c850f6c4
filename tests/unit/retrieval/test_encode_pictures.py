"""Pictures on their way to the encoder."""

import threading
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bridgetower.retrieval.encode_pictures
from bridgetower.encoders.protocol import Pictures, Pixels
from bridgetower.errors import ResourceError
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.records import Candidate, Skipped
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE, candidate_of, encoded
from tests.fakes import COLOURS, FakeEncoder, paint


def test_the_next_pictures_are_decoded_while_the_encoder_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2 * PICTURES_AT_ONCE)]
    for path in paths:
        paint(path, COLOURS["red"])
    last_is_loaded = threading.Event()
    load = bridgetower.retrieval.encode_pictures.load

    def watched(candidate: Candidate, *rest: object) -> object:
        pixels = load(candidate, *rest)  # type: ignore[arg-type]
        if candidate.path == paths[-1]:
            last_is_loaded.set()
        return pixels

    class Waiting(FakeEncoder):
        def encode_images(self, pixels: Pixels) -> Pictures:
            assert last_is_loaded.wait(20), "decoding waits for the encoder"
            return super().encode_images(pixels)

    monkeypatch.setattr(bridgetower.retrieval.encode_pictures, "load", watched)
    batches = [[one.path for one in there] for there, _ in encoded(Waiting(), [Candidate(path) for path in paths], [])]
    assert batches == [paths[:PICTURES_AT_ONCE], paths[PICTURES_AT_ONCE:]]


def test_what_cannot_be_read_is_told_in_order_and_the_rest_is_encoded(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(PICTURES_AT_ONCE + 2)]
    for path in paths:
        paint(path, COLOURS["red"])
    for bad in (paths[1], paths[-1]):
        bad.write_bytes(b"no picture")
    skipped: list[Skipped] = []
    batches = [
        [one.path for one in there] for there, _ in encoded(FakeEncoder(), [Candidate(path) for path in paths], skipped)
    ]
    assert batches == [[paths[0], *paths[2:PICTURES_AT_ONCE]], [paths[PICTURES_AT_ONCE]]]
    assert [skip.path for skip in skipped] == [paths[1], paths[-1]]


def test_want_of_memory_is_no_fault_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(image: object) -> None:
        raise MemoryError

    paint(tmp_path / "a.png", COLOURS["red"])
    monkeypatch.setattr("bridgetower.pictures.decode.to_rgb", exhausted)
    skipped: list[Skipped] = []
    for candidate in (Candidate(tmp_path / "a.png"), candidate_of(Image.new("RGB", (9, 9)))):
        with pytest.raises(ResourceError, match="not enough memory to decode it"):
            list(encoded(FakeEncoder(), [candidate], skipped))
    assert not skipped


def test_neighbours_without_features_are_encoded_together_and_in_order(tmp_path: Path) -> None:
    class Counting(FakeEncoder):
        numbers: list[int]

        def encode_images(self, pixels: Pixels) -> Pictures:
            self.numbers.append(len(pixels))
            return super().encode_images(pixels)

    judge, cache, pictures = Counting(), FeatureCache(tmp_path / "features", 10**6), []
    for number, colour in enumerate(["red", "green", "blue", "white"]):
        path = paint(tmp_path / f"{number}.png", colour)
        pictures.append(Candidate(path, content=sha256(path.read_bytes()).digest()))
    judge.numbers = []
    [(_, cold)] = encoded(judge, pictures, [])
    list(encoded(judge, [pictures[1]], [], cache))
    judge.numbers = []
    [(there, mixed)] = encoded(judge, pictures, [], cache)
    assert (there, judge.numbers) == (pictures, [1, 2])
    np.testing.assert_array_equal(mixed.features, cold.features)
    judge.numbers = []
    [(there, warm)] = encoded(judge, pictures, [], cache)
    assert (there, judge.numbers) == (pictures, [])
    np.testing.assert_array_equal(warm.features, cold.features)


def test_a_batch_takes_more_pictures_while_their_features_are_cached_and_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, cache, number = FakeEncoder(), FeatureCache(tmp_path / "features", 10**6), 2 * PICTURES_AT_ONCE + 1
    pictures = []
    for place in range(number):
        path = paint(tmp_path / f"{place}.png", (place, 0, 0))
        pictures.append(Candidate(path, content=sha256(path.read_bytes()).digest()))

    def sizes(cache: FeatureCache | None = None) -> list[int]:
        found = [(there, pictures) for there, pictures in encoded(judge, pictures, [], cache)]
        assert [one for there, _ in found for one in there] == pictures
        assert [len(some.features) for _, some in found] == [len(there) for there, _ in found]
        return [len(there) for there, _ in found]

    in_fours = [PICTURES_AT_ONCE, PICTURES_AT_ONCE, 1]
    assert sizes() == sizes(cache) == in_fours
    assert sizes(cache) == [number]
    [(_, one)] = encoded(judge, pictures[:1], [])
    a_picture = len(judge.pack(one)[0])
    monkeypatch.setattr(bridgetower.retrieval.encode_pictures, "_FEATURES_AT_ONCE", (number - 1) * a_picture)
    assert sizes(cache) == [number - 1, 1]
    monkeypatch.setattr(bridgetower.retrieval.encode_pictures, "_FEATURES_AT_ONCE", 1)
    assert sizes(cache) == in_fours
