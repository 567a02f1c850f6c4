"""Pictures by content: what is merged, what is true of what, and what is held out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetower.training.data.pairs import (
    Pairs,
    TrainingPicture,
    digest,
    drawn,
    merged,
    seen_captions,
    shared_captions,
    true_of,
)


def picture(content: str, *captions: str, path: str = "") -> TrainingPicture:
    return TrainingPicture(Path(path or f"/{content}.jpg"), 9, content.encode(), captions)


CAT, DOG = picture("cat", "a cat", "A pet"), picture("dog", "a dog", "two dogs", "a  Pet")


def test_pairs_are_numbered_picture_by_picture() -> None:
    pairs = Pairs([CAT, DOG])
    assert len(pairs) == 5
    assert [pairs[number] for number in range(5)] == [(one, text) for one in (CAT, DOG) for text in one.captions]
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            pairs[outside]
    assert len(Pairs([])) == 0


def test_equal_contents_are_one_picture_with_the_captions_of_all() -> None:
    found = merged([CAT, DOG, picture("cat", "a CAT", "a kitten", path="/copy.jpg"), picture("owl", "x", "X ", "y")])
    assert found.pictures == (picture("cat", "a cat", "A pet", "a kitten"), DOG, picture("owl", "x", "y"))
    assert (found.equal, found.repeated) == (1, 2)


def test_a_picture_to_which_nothing_is_added_is_not_copied() -> None:
    owl, again = picture("owl", "x", "y"), picture("owl", "Y", path="/copy.jpg")
    assert merged([CAT, owl, again]).pictures[0] is CAT and merged([CAT, owl, again]).pictures[1] is owl


def test_a_text_is_true_of_each_picture_that_has_it_in_any_spelling() -> None:
    texts = ["a cat", "a pet", "two dogs", "A CAT", "a fox"]
    assert true_of(texts, [CAT, DOG, CAT]).tolist() == [
        [True, False, True],
        [True, True, True],
        [False, True, False],
        [True, False, True],
        [False, False, False],
    ]
    assert true_of([], [CAT]).shape == (0, 1) and true_of(["a"], []).shape == (1, 0)


@pytest.mark.parametrize(
    "other",
    [
        "a cat on Mum's caf\u00e9 chair.",
        "A cat  on Mum’s cafe\u0301 chair",
        "a cat on mum's café chair …",
        "Ａ cat on MUM'S CAFÉ chair!",
    ],
)
def test_texts_that_say_the_same_are_one(other: str) -> None:
    first = "a cat on Mum's café chair"
    assert merged([picture("cat", first, other)]).pictures == (picture("cat", first),)
    assert true_of([first], [picture("cat", other)]).all()


def test_punctuation_alone_is_a_text_of_its_own() -> None:
    assert true_of(["?"], [picture("cat", "..."), picture("dog", "?")]).tolist() == [[False, True]]


def test_captions_of_several_pictures_are_counted() -> None:
    assert shared_captions([CAT, DOG]) == 2
    assert shared_captions([CAT]) == 0


def test_captions_of_a_validation_that_others_have_are_counted() -> None:
    assert seen_captions([DOG, picture("owl", "a pet")], [CAT, CAT]) == 2
    assert seen_captions([DOG], []) == 0


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=5, max_size=40, unique=True), st.integers(0, 5))
def test_what_is_held_out_depends_on_the_content_not_on_its_place(contents: list[bytes], seed: int) -> None:
    pictures = [TrainingPicture(Path("/a"), 1, content, ("x",)) for content in contents]
    chosen = drawn(pictures, 3, seed)
    assert len(chosen) == 3 and chosen == drawn(pictures[::-1], 3, seed)
    without = [one for one in pictures if one.hash not in chosen]
    assert chosen | drawn(without, 1, seed) == drawn(pictures, 4, seed)


def test_another_seed_holds_out_others() -> None:
    pictures = [picture(str(number), "x") for number in range(50)]
    assert drawn(pictures, 10, 0) != drawn(pictures, 10, 1)


def test_the_digest_tells_contents_texts_order_and_parts_but_no_places() -> None:
    parts = [[CAT], [DOG]]
    assert digest(parts) == digest([[picture("cat", "a cat", "A pet", path="/moved/cat.png")], [DOG]])
    others = (
        [[CAT, DOG], []],
        [[DOG], [CAT]],
        [[CAT], []],
        [[picture("cat", "a catA pet")], [DOG]],
        [[CAT], [DOG], []],
    )
    assert len({digest(other) for other in (parts, *others)}) == 6
