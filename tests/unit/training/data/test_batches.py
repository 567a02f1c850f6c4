"""Batches: what is in them, from any step and for any process; what a file does that has changed meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.errors import InputError, UsageError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.decode_pool import DecodePool
from bridgetower.pictures.preprocess import Preprocessing, preprocess
from bridgetower.prefetch import workers
from bridgetower.training.batch import Batch
from bridgetower.training.data import decoding
from bridgetower.training.data.batches import Batches
from bridgetower.training.data.decoding import Wanted, pixels
from bridgetower.training.data.order import Order
from bridgetower.training.data.pairs import Pairs, TrainingPicture, key_of, merged
from tests.fakes import COLOURS, paint
from tests.tiny import tiny_tokenizer

SPEC = Preprocessing(32, 32, name="plain")
pytestmark = pytest.mark.usefixtures("decode_here")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return Tokenizer.from_folder(folder, 12)


def seen(path: Path, *captions: str) -> TrainingPicture:
    content = path.read_bytes()
    return TrainingPicture(path, len(content), sha256(content).digest(), captions)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingPicture]:
    """One of each colour; three of them share a caption."""
    folder = tmp_path_factory.mktemp("pictures")
    files = [paint(folder / f"{colour}.png", colour, (48, 40)) for colour in COLOURS]
    return [
        seen(files[0], "a red ball", "it is warm"),
        seen(files[1], "a green tree", "a plant", "A  colour"),
        seen(files[2], "a blue sea", "a colour"),
        seen(files[3], "white snow", "a COLOUR", "to the left"),
    ]


def make(pictures: list[TrainingPicture], tokenizer: Tokenizer, **options: object) -> Batches:
    """Batches of 6, 2 of them of the replay, which is the last picture."""
    streams = Pairs(pictures[:-1]), Pairs(pictures[-1:])
    order = Order(len(streams[0]), len(streams[1]), batch=6, replay_share=1 / 3, seed=5)
    return Batches(streams, order, preprocessing=SPEC, tokenizer=tokenizer, **options)  # type: ignore[arg-type]


def take(batches: Batches, step: int, number: int) -> list[Batch]:
    return list(islice(batches(step), number))


def same(one: Batch, other: Batch) -> bool:
    pairs = ((one.pixels, other.pixels), (one.ids, other.ids), (one.mask, other.mask), (one.true_of, other.true_of))
    return all(torch.equal(a, b) for a, b in pairs) and one.start == other.start


def test_a_batch_has_pixels_ids_and_what_is_true(pictures: list[TrainingPicture], tokenizer: Tokenizer) -> None:
    order = Order(7, 3, batch=6, replay_share=1 / 3, seed=5)
    streams = Pairs(pictures[:-1]), Pairs(pictures[-1:])
    batches = make(pictures, tokenizer, augment=False)
    for step, batch in enumerate(take(batches, 0, 4)):
        pairs = [streams[item.stream][item.pair] for item in order.items(step)]
        for (picture, text), row, ids, mask in zip(pairs, batch.pixels, batch.ids, batch.mask, strict=True):
            image = decode(picture.path.read_bytes(), picture.path)
            assert np.allclose(row.numpy(), preprocess(image, SPEC), atol=1e-6)
            assert tuple(ids[mask].tolist()) == tokenizer.encode(text).ids
        assert batch.pixels.dtype == torch.float32 and batch.ids.dtype == torch.int64
        assert batch.ids.shape[1] == max(len(tokenizer.encode(text).ids) for _, text in pairs) <= 12
        keys = [{key_of(caption) for caption in picture.captions} for picture, _ in pairs]
        assert batch.true_of.tolist() == [[key_of(text) in own for own in keys] for _, text in pairs]
        assert bool(batch.true_of.diagonal().all())


def test_a_text_that_is_too_long_keeps_its_end_mark(pictures: list[TrainingPicture], tokenizer: Tokenizer) -> None:
    long = seen(pictures[0].path, "red " * 50)
    order = Order(1, batch=1, seed=0)
    batches = Batches([Pairs([long])], order, preprocessing=SPEC, tokenizer=tokenizer)
    [batch] = take(batches, 0, 1)
    assert batch.ids.shape == (1, 12) and int(batch.ids[0, -1]) == tokenizer.end_id


@pytest.mark.parametrize("augment", [False, True])
def test_batches_from_a_step_are_the_tail_of_all(
    pictures: list[TrainingPicture], tokenizer: Tokenizer, augment: bool
) -> None:
    whole = take(make(pictures, tokenizer, augment=augment), 0, 7)
    for start in (1, 4):
        tail = take(make(pictures, tokenizer, augment=augment, processes=1), start, 7 - start)
        assert all(map(same, tail, whole[start:]))


def test_augmentation_changes_pixels_and_nothing_else(pictures: list[TrainingPicture], tokenizer: Tokenizer) -> None:
    [plain] = take(make(pictures, tokenizer, augment=False), 0, 1)
    [changed] = take(make(pictures, tokenizer), 0, 1)
    assert not torch.allclose(plain.pixels, changed.pixels, atol=1e-3)
    changed.pixels = plain.pixels
    assert same(plain, changed)


@pytest.mark.parametrize(("caption", "mirrors"), [("a ball", True), ("a ball to the left", False)])
def test_a_picture_is_mirrored_only_where_all_its_captions_stay_true(
    tmp_path: Path, tokenizer: Tokenizer, caption: str, mirrors: bool
) -> None:
    half = Image.new("RGB", (32, 32), (20, 20, 20))
    half.paste((255, 255, 255), (16, 0, 32, 32))
    half.save(tmp_path / "half.png")
    pairs = Pairs([seen(tmp_path / "half.png", "a picture", caption)])
    batches = Batches([pairs], Order(2, batch=2, seed=0), preprocessing=SPEC, tokenizer=tokenizer)
    rows = torch.cat([batch.pixels for batch in take(batches, 0, 16)])
    mirrored = rows[..., :8].mean(dim=(1, 2, 3)) > rows[..., -8:].mean(dim=(1, 2, 3))
    assert bool(mirrored.any()) == mirrors and not bool(mirrored.all())


def test_processes_have_all_texts_and_a_part_of_the_pictures(
    pictures: list[TrainingPicture], tokenizer: Tokenizer
) -> None:
    [whole] = take(make(pictures, tokenizer), 2, 1)
    parts = [take(make(pictures, tokenizer, rank=rank, ranks=4), 2, 1)[0] for rank in range(4)]
    assert torch.equal(torch.cat([part.pixels for part in parts]), whole.pixels)
    assert [part.start for part in parts] == [0, 1, 3, 4]
    for part in parts:
        assert torch.equal(part.ids, whole.ids) and torch.equal(part.true_of, whole.true_of)
    with pytest.raises(UsageError, match="fewer than the 7 processes"):
        make(pictures, tokenizer, rank=0, ranks=7)


words = st.sampled_from(["a cat", "A cat", "a  cat ", "dog", "Dog", "two dogs", "sea"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(words, min_size=1, max_size=3)), min_size=2, max_size=6))
def test_no_batch_has_a_false_negative(
    pictures: list[TrainingPicture], tokenizer: Tokenizer, listed: list[tuple[int, list[str]]]
) -> None:
    """Neither the text of an equal picture nor an equal text is false, however the files say it."""
    given = [seen(pictures[number].path, *captions) for number, captions in listed]
    said: dict[bytes, set[str]] = {}
    for picture in given:
        said.setdefault(picture.hash, set()).update(" ".join(text.split()).lower() for text in picture.captions)
    pairs = Pairs(merged(given).pictures)
    order = Order(len(pairs), batch=min(4, len(pairs)), seed=1)
    for step, batch in enumerate(take(Batches([pairs], order, preprocessing=SPEC, tokenizer=tokenizer), 0, 3)):
        chosen = [pairs[item.pair] for item in order.items(step)]
        for i, (_, text) in enumerate(chosen):
            for j, (picture, _) in enumerate(chosen):
                assert bool(batch.true_of[i, j]) == (" ".join(text.split()).lower() in said[picture.hash])


def test_pictures_of_a_validation_come_as_they_are(pictures: list[TrainingPicture]) -> None:
    found = list(pixels([Wanted(picture) for picture in pictures], SPEC, window=2))
    for picture, row in zip(pictures, found, strict=True):
        assert np.allclose(row, preprocess(decode(picture.path.read_bytes(), picture.path), SPEC), atol=1e-6)


@pytest.mark.parametrize(("there", "asked", "started"), [(1, None, 8), (3, None, 2), (16, None, 1), (3, 5, 5)])
def test_processes_of_a_machine_share_its_cores(
    pictures: list[TrainingPicture], monkeypatch: pytest.MonkeyPatch, there: int, asked: int | None, started: int
) -> None:
    numbers: list[int | None] = []

    def counted(*, number: int | None) -> AbstractContextManager[ThreadPoolExecutor]:
        numbers.append(number)
        return workers(number=number)

    monkeypatch.setattr(decoding, "workers", counted)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(there))
    assert len(list(pixels([Wanted(pictures[0])], SPEC, window=1, processes=asked))) == 1
    assert numbers == [started]


@pytest.mark.parametrize("change", ["gone", "another", "broken"])
def test_a_file_that_has_changed_since_the_check_is_named_with_the_way_on(
    pictures: list[TrainingPicture], tmp_path: Path, tokenizer: Tokenizer, change: str
) -> None:
    file = paint(tmp_path / "one.png", "red")
    one = seen(file, "a red ball")
    if change == "gone":
        file.unlink()
    elif change == "another":
        paint(file, "blue")
    else:
        file.write_bytes(b"no picture")
        one = seen(file, "a red ball")
    batches = Batches([Pairs([*pictures, one])], Order(11, batch=4, seed=0), preprocessing=SPEC, tokenizer=tokenizer)
    way_out = "run the same" if change == "broken" else "restore the file, then run the same"
    with pytest.raises(InputError, match=rf"one\.png: .*, unlike when the data was checked: {way_out}") as raised:
        take(batches, 0, 4)
    assert "\n" not in str(raised.value) and "the last saved state" in str(raised.value)


@pytest.mark.process
def test_real_processes_decode_at_most_a_batch_ahead_and_end_with_the_batches(
    pictures: list[TrainingPicture], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[TrainingPicture] = []
    real = decoding._square
    pools: list[DecodePool] = []

    def counted(picture: TrainingPicture, pool: DecodePool) -> bytes:
        started.append(picture)
        pools.append(pool)
        return real(picture, pool)

    monkeypatch.setattr(decoding, "DecodePool", DecodePool)
    monkeypatch.setattr(decoding, "_square", counted)
    running = make(pictures, tokenizer, processes=2)(0)
    for step in range(3):
        next(running)
        assert len(started) <= (step + 2) * 6 + 1
    running.close()
    assert pools[0]._closed.is_set() and not pools[0]._idle
