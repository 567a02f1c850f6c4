"""The drawn scenes: that captions are true of what is drawn, near misses are not, and held-out scenes stay out."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.files.captions.read import read_captions
from examples.measure_demo import calibration_error, masked_words, minimal_pairs
from examples.scenes import compose, pictures
from examples.scenes.captions import foil, names, phrase, plural, strange, terse
from examples.scenes.compose import SIDES, Claim, Scene, bare, near_miss, part_of, random_scene
from examples.scenes.draw import LARGEST_ASPECT, WANTED, distinct_scenes, random_size
from examples.scenes.masks import Gap, MaskedClaim, mask
from examples.scenes.pictures import draw
from examples.scenes.vocabulary import (
    ANIMALS,
    BACKGROUNDS,
    NEW_THINGS,
    PAINTED,
    PLACES,
    SPRITES,
    SYNONYMS,
    THINGS,
    UNDRAWN,
    UNHEARD,
    UNMET,
)
from examples.train_demo import BATCH, CANVASES, DIETS, OTHERS, QUERIES, Scenes

MANY = 3000


def some_scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng, held_out=False) for _ in range(count)]


def test_there_is_enough_to_draw() -> None:
    assert len(THINGS) >= 100
    assert len(BACKGROUNDS) >= 8
    assert len(PLACES) >= 10
    seen = some_scenes(MANY)
    assert {scene.count for scene in seen} == {1, 2, 3, 4}
    assert {scene.relation for scene in seen} == {"", compose.WINDOW, *SIDES, *PLACES}
    assert {scene.noun for scene in seen} == set(THINGS)


def test_a_tenth_of_the_compositions_is_held_out_and_never_drawn_in_training() -> None:
    rng = random.Random(1)
    everything = [compose._any_scene(rng, compose.KINDS) for _ in range(MANY)]
    assert 0.08 < sum(scene.held_out for scene in everything) / MANY < 0.12
    assert not any(scene.held_out for scene in some_scenes(MANY))
    assert all(random_scene(rng, held_out=True).held_out for _ in range(50))
    for scene in some_scenes(500):
        assert not near_miss(scene, rng).held_out


def test_which_compositions_are_held_out_does_not_change() -> None:
    """The shipped model was trained without these; another rule would measure it on what it has seen."""
    assert all(scene.held_out for scene in WANTED)
    rng = random.Random(5)
    seen = [compose._any_scene(rng, compose.KINDS) for _ in range(20)]
    assert [number for number, scene in enumerate(seen) if scene.held_out] == [7, 8]


def test_the_full_claim_is_true_of_its_scene_and_false_of_a_near_miss_that_is_not_more_special() -> None:
    rng = random.Random(2)
    for scene in some_scenes(MANY):
        assert scene.claim().true_of(scene)
        missed = near_miss(scene, rng)
        assert missed != scene
        # Only where the other scene merely *has* something of which the first says nothing may its claim hold there.
        if scene.claim().true_of(missed):
            assert not scene.background or not scene.relation or not scene.attribute


def test_a_part_of_a_claim_is_true_wherever_the_claim_is() -> None:
    rng = random.Random(3)
    for scene in some_scenes(MANY):
        assert part_of(scene.claim(), rng).true_of(scene)
        assert bare(scene.claim(), rng).true_of(scene)


@pytest.mark.parametrize(
    ("claim", "truth"),
    [
        (Claim("cat", 2, relation="couch", background="snow"), True),
        (Claim("cat", 2), True),
        (Claim("cat", None), True),
        (Claim("cat", 1), False),
        (Claim("cat", 3), False),
        (Claim("dog", 2), False),
        (Claim("cat", 2, relation="bed"), False),
        (Claim("cat", 2, background="sea"), False),
        (Claim("cat", 2, attribute="big"), False),
    ],
)
def test_what_is_true_of_two_cats_on_a_couch_in_the_snow(claim: Claim, truth: bool) -> None:
    assert claim.true_of(Scene("cat", 2, "", "couch", "", "snow")) is truth


def test_sides_are_not_symmetric_and_either_thing_may_be_spoken_of() -> None:
    scene = Scene("cat", 1, "", "left", "dog")
    assert Claim("cat", 1, relation="left", other="dog").true_of(scene)
    assert not Claim("dog", 1, relation="left", other="cat").true_of(scene)
    assert not Claim("cat", 1, relation="above", other="dog").true_of(scene)
    assert Claim("dog", 1).true_of(scene)
    assert not Claim("dog", None).true_of(scene)


CATS = Scene("cat", 2, relation="couch", background="snow")
PAIR = Scene("cat", 1, relation="left", other="dog", background="sea")


@pytest.mark.parametrize(
    ("claim", "gap", "true_of", "false_of"),
    [
        (Claim("dog", 2, relation="couch"), Gap("noun"), CATS, replace(CATS, count=3)),
        (Claim("owl", 1), Gap("noun"), PAIR, CATS),
        (Claim("cat", 1, relation="left", other="owl"), Gap("other"), PAIR, replace(PAIR, noun="owl")),
        (Claim("cat", 4, relation="couch"), Gap("count"), CATS, replace(CATS, count=1)),
        (Claim("star", 1, "red"), Gap("attribute"), Scene("star", 1, "blue"), Scene("heart", 1, "red")),
        (Claim("cat", 1, "big"), Gap("attribute"), Scene("cat", 1, "small"), Scene("cat", 1)),
        (Claim("dog", 1, relation="left", other="cat"), Gap("side"), PAIR, replace(PAIR, relation="above")),
        (Claim("cat", 2, relation="bed"), Gap("relation", "on a"), CATS, replace(CATS, relation="box")),
        (Claim("cat", 2, relation="box"), Gap("relation", "in the"), CATS, replace(CATS, background="sea")),
        (Claim("cat", 2, background="city"), Gap("background", "in the"), replace(CATS, relation="car"), PAIR),
        (Claim("cat", 2, background="night"), Gap("background", "at"), replace(CATS, background="sunset"), CATS),
        (Claim("cat", 2, "", "couch", background="city"), Gap("background", "in the"), CATS, replace(CATS, count=1)),
    ],
)
def test_a_masked_text_is_true_where_some_word_makes_it_true(
    claim: Claim, gap: Gap, true_of: Scene, false_of: Scene
) -> None:
    assert MaskedClaim(claim, (gap,)).true_of(true_of)
    assert not MaskedClaim(claim, (gap,)).true_of(false_of)


@pytest.mark.parametrize(
    ("text", "claim", "masked"),
    [
        ("an owl", Claim("owl", 1), {"a <mask>"}),
        ("An owl at night.", Claim("owl", 1, background="night"), {"A <mask> at night.", "An owl at <mask>."}),
        ("two mice inside the tub", Claim("mouse", 2, relation="bathtub"),
         {"two <mask> inside the tub", "<mask> mice inside the tub", "two mice inside the <mask>"}),
        ("a cat on the left of a dog", Claim("cat", 1, relation="left", other="dog"),
         {"a <mask> on the left of a dog", "a cat on the <mask> of a dog", "a cat on the left of a <mask>"}),
        ("a dog under a cat", Claim("cat", 1, relation="above", other="dog"),  # a cat, or a tree?
         {"a <mask> under a cat", "a dog <mask> a cat"}),
        ("a red star on a snowy day", Claim("star", 1, "red", background="snow"),
         {"a <mask> star on a snowy day", "a red <mask> on a snowy day"}),
    ],
)  # fmt: skip
def test_each_word_that_a_picture_can_tell_may_be_masked(text: str, claim: Claim, masked: set[str]) -> None:
    rng = random.Random(0)
    assert {mask(text, claim, rng)[0] for _ in range(60)} == masked
    both, said = mask(text, claim, rng, words=2)
    assert both.count("<mask>") == len(said.gaps) == min(2, len(masked))


def test_a_masked_caption_is_true_of_its_scene() -> None:
    rng = random.Random(9)
    for scene in some_scenes(MANY):
        claim = rng.choice([scene.claim(), part_of(scene.claim(), rng), bare(scene.claim(), rng)])
        _, masked = mask(phrase(claim, rng), claim, rng, words=rng.choice([1, 2, 3]))
        assert masked.gaps
        assert masked.true_of(scene)


def test_a_foil_says_something_that_no_part_of_the_scene_bears_out() -> None:
    rng = random.Random(4)
    strangers = {word for noun in UNDRAWN for word in (noun, plural(noun))}
    scenes = some_scenes(300)
    texts, claims = zip(*(foil(scene, rng) for scene in scenes), strict=True)
    assert not any(claim.true_of(scene) for claim, scene in zip(claims, scenes, strict=True))
    assert 0.2 < sum(bool(strangers & set(text.lower().strip(".").split())) for text in texts) / len(texts) < 0.5
    assert not strangers & set(THINGS)


def test_a_strange_claim_names_a_thing_that_is_never_drawn() -> None:
    rng = random.Random(6)
    drawn = {word for noun in [*THINGS, *PLACES] for word in names(noun)}
    claims = [strange(scene.claim(), rng) for scene in some_scenes(MANY)]
    said = {word for claim in claims for word in (claim.noun, claim.other)} - drawn - {None}
    assert all(claim.noun not in drawn or claim.other not in drawn for claim in claims)
    assert set(UNDRAWN) <= said
    assert len(said & set(UNMET)) > 600
    assert len(said - set(UNDRAWN) - set(UNMET)) > 300, "words are made up"


def test_nouns_to_measure_on_are_not_shown_in_training() -> None:
    drawn = {word for noun in [*THINGS, *PLACES] for word in names(noun)}
    assert not set(UNHEARD) & {*drawn, *UNDRAWN, *UNMET}
    assert not set(UNMET) & {*drawn, *UNDRAWN}
    assert len(UNMET) > 600
    assert len({*UNHEARD, *UNMET}) == len(UNHEARD) + len(UNMET)


def test_nouns_that_were_not_met_are_spelt_in_pieces() -> None:
    tokenizer = Tokenizer.from_folder(resolve("demo").folder, 64)
    _, tokens = tokenizer.encode_batch([f" {noun}" for noun in [*UNMET, *UNHEARD]])
    assert (tokens.sum(axis=1) > 3).all()  # more than <s>, a word, </s>


def test_a_batch_says_of_each_text_which_pictures_it_is_true_of() -> None:
    tokenizer = Tokenizer.from_folder(resolve("demo").folder, 64)
    batch = Scenes(tokenizer, 1, DIETS["usual"], 0)[0]
    assert batch.ids.shape[0] == BATCH + QUERIES + BATCH + OTHERS
    assert batch.true_of.shape == (len(batch.ids), len(batch.pixels))
    assert batch.true_of[:BATCH].diagonal().all()
    assert batch.true_of[BATCH : BATCH + QUERIES].any(dim=1).all()
    assert not batch.true_of[BATCH + QUERIES : -OTHERS].diagonal().any()
    assert not batch.true_of[-OTHERS:].any(dim=1).all(), "most other texts are true of nothing"


@pytest.mark.parametrize(
    ("scene", "usual"),
    [
        (Scene("cat", 2, "", "couch"), "two cats on a couch"),
        (Scene("cat", 1, "", "window", "", "snow"), "a cat looking out of a window in the snow"),
        (Scene("owl", 1, "", "left", "elephant"), "an owl to the left of an elephant"),
        (Scene("balloon", 3, "red", "tree", "", "night"), "three red balloons under a tree at night"),
        (Scene("wolf", 4, "", "fence"), "four wolves behind a fence"),
        (Scene("mouse", 1, "big"), "a big mouse"),
        (Scene("apple", 1, "", "umbrella"), "an apple under an umbrella"),
    ],
)
def test_the_usual_phrase(scene: Scene, usual: str) -> None:
    assert phrase(scene.claim(), random.Random(0), plain=True) == usual


@pytest.mark.parametrize(
    ("text", "typed"),
    [("a cat", "cat"), ("an owl on a bed", "owl on a bed"), ("a photo of a cat", "photo of a cat"), ("ants", "ants")],
)
def test_a_terse_text_has_no_article_in_front(text: str, typed: str) -> None:
    assert terse(text) == typed


def test_there_are_many_ways_to_say_it() -> None:
    rng = random.Random(0)
    said = {phrase(Scene("cat", 2, "", "couch").claim(), rng) for _ in range(400)}
    assert len(said) > 40
    assert any("sofa" in text for text in said)


def test_what_is_measured_are_the_words_of_the_scene_not_of_the_backdrop() -> None:
    found = masked_words("on the grass, two cats sitting on a sofa")
    assert [(kind, word) for kind, _, word in found] == [
        ("number", "two"), ("noun", "cats"), ("relation", "on"), ("noun", "sofa"),
    ]  # fmt: skip
    assert found[2][1] == "on the grass, two cats sitting <mask> a sofa"
    sides = masked_words("a cow on the left of a pig in the snow")
    assert [(kind, word) for kind, _, word in sides] == [("noun", "cow"), ("relation", "left"), ("noun", "pig")]


def test_drawing_is_repeatable_and_shows_a_difference() -> None:
    one = Scene("cat", 1, "", "couch")
    first, again = (draw(one, (200, 160), random.Random(1)) for _ in range(2))
    assert (first.size, first.mode) == ((200, 160), "RGB")
    assert ImageChops.difference(first, again).getbbox() is None
    for other in (replace(one, count=2), replace(one, noun="dog"), replace(one, background="night")):
        assert ImageChops.difference(first, draw(other, (200, 160), random.Random(1))).getbbox() is not None


@pytest.mark.parametrize("relation", ["", "window", *SIDES, *PLACES])
def test_every_kind_of_scene_can_be_drawn(relation: str) -> None:
    other = "dog" if relation in SIDES else ""
    noun = "cat" if relation == "window" else "heart"
    attribute = "" if noun in ANIMALS else "red"
    for background in BACKGROUNDS:
        picture = draw(Scene(noun, 1, attribute, relation, other, background), (96, 128), random.Random(0))
        assert len(set(picture.resize((16, 16)).get_flattened_data())) > 8


def test_the_sprite_sheet_has_a_picture_of_everything() -> None:
    sprites = pictures._sprites()
    assert set(sprites) == {*SPRITES, *NEW_THINGS}
    for name, sprite in sprites.items():
        assert max(sprite.size) > 0.8 * pictures.CELL_PX, name
        assert sprite.mode == "RGBA"
    assert sum(file.stat().st_size for file in pictures.SHEETS) < 1_000_000


def test_new_things_stand_only_in_scenes_that_ask_for_them() -> None:
    """The demo model has never met them, neither drawn nor named in a caption that is false."""
    words = {word for noun in NEW_THINGS for word in names(noun)}
    met = {*SPRITES, *PLACES, *SYNONYMS.values(), *UNDRAWN, *UNMET}
    assert not words & {word for noun in met for word in (noun, plural(noun))}
    rng = random.Random(11)
    seen = [random_scene(rng, held_out=False, new=True) for _ in range(MANY)]
    assert {scene.noun for scene in seen} == set(NEW_THINGS)
    assert {scene.other for scene in seen} == {"", *NEW_THINGS}
    assert {scene.noun for scene in distinct_scenes(60, rng, new=True)} <= set(NEW_THINGS)
    assert not {scene.noun for scene in distinct_scenes(60, rng)} & set(NEW_THINGS)


def test_no_caption_of_a_measured_set_is_true_of_another_picture() -> None:
    chosen = distinct_scenes(60, random.Random(0), WANTED)
    assert all(scene.held_out for scene in chosen)
    for scene in chosen:
        assert [other for other in chosen if scene.claim().true_of(other)] == [scene]


def test_the_script_draws_a_set_that_can_be_measured(tmp_path: Path) -> None:
    script = Path(pictures.__file__).with_name("draw.py")
    words = ["--held-out", "--count", "4", "--seed", "7", "--out", tmp_path]
    subprocess.run([sys.executable, script, *map(str, words)], check=True, cwd=tmp_path)
    captioned = read_captions(tmp_path / "captions.jsonl")
    assert len(captioned) == 4
    for item in captioned:
        with Image.open(item.image) as picture:
            assert min(picture.size) >= 320 and max(picture.size) <= 640


def test_training_sees_all_shapes_of_the_pictures_that_are_measured() -> None:
    """The model failed on tall cars of a shape between two that it had seen."""
    seen = sorted(width / height for width, height in CANVASES)
    assert seen[0] <= 1 / LARGEST_ASPECT
    assert seen[-1] >= LARGEST_ASPECT
    rng = random.Random(0)
    for width, height in (random_size(rng) for _ in range(200)):
        assert min(max(shape * height / width, width / height / shape) for shape in seen) < 1.05


def test_a_painted_thing_is_practised_against_others_of_its_colour() -> None:
    rng, heart = random.Random(0), Scene("heart", 2, "red", "couch")
    renamed = {near_miss(heart, rng, rename=1.0) for _ in range(100)}
    assert {scene.noun for scene in renamed} == set(PAINTED) - {"heart"}
    assert {(scene.count, scene.attribute, scene.relation) for scene in renamed} == {(2, "red", "couch")}


@pytest.mark.parametrize(
    ("scene", "pairs"),
    [
        (
            Scene("owl", 1, "", "left", "ant"),
            {
                ("left/right", "an owl to the left of an ant", "an owl to the right of an ant"),
                ("things exchanged", "an owl to the left of an ant", "an ant to the left of an owl"),
            },
        ),
        (
            Scene("heart", 1, "red", "above", "ant"),
            {("above/below", "a red heart above an ant", "a red heart below an ant")},
        ),
        (Scene("cat", 3, "", "bed"), {("two/three", "three cats on a bed", "two cats on a bed")}),
        (Scene("cat", 4, "", "bed"), set()),
    ],
)
def test_a_minimal_pair_differs_in_one_respect(scene: Scene, pairs: set[tuple[str, str, str]]) -> None:
    usual = random.Random(0)
    usual.random = lambda: 1.0  # type: ignore[method-assign]
    assert set(minimal_pairs(scene, usual)) == pairs


def test_the_calibration_error_is_how_far_a_probability_is_from_how_often_it_is_right() -> None:
    right = np.arange(1500) % 4 == 0  # a quarter in each bin
    assert calibration_error(np.full(1500, 0.25), right) == pytest.approx(0, abs=1e-6)
    assert calibration_error(np.full(1500, 0.9), right) == pytest.approx(0.65)
    halves = np.repeat([0.0, 0.5], 750)  # too low by a quarter, then too high by as much
    assert calibration_error(halves, right, bins=10) == pytest.approx(0.25, abs=0.01)
