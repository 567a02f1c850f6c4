"""Scenes that we draw ourselves, so that the truth of a caption is known and not guessed.

    Scene --draw()--> picture                 what there is: pictures.py
      |---claim()--> Claim --phrase()--> text what is said of it, wholly or in part: captions.py; `Claim.true_of` knows

A fixed tenth of all compositions, chosen by hash, is held out: `Scene.held_out`. Training never draws one of them.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from examples.scenes.vocabulary import ANIMALS, BACKGROUNDS, COLOURS, NEW_THINGS, OBJECTS, PAINTED, PLACES, SIZES

WINDOW = "window"  # relation: looking out of a window
SIDES = ("left", "above")  # relation between two things; right and below are the same scenes told the other way round
KINDS = {"alone": 28, "place": 34, "sides": 30, "window": 8}  # of scenes, and their usual weights
PAINTED_SHARE = 0.12
HELD_OUT_SHARE = 10  # one composition in ten


@dataclass(frozen=True)
class Scene:
    """A composition: everything a caption may speak of. "" means that there is nothing of the kind."""

    noun: str
    count: int = 1
    attribute: str = ""  # a colour (painted things, always) or a size (single things without a relation)
    relation: str = ""  # a key of PLACES, WINDOW, or one of SIDES
    other: str = ""  # the second thing, where the relation is one of SIDES
    background: str = ""

    @property
    def held_out(self) -> bool:
        key = "|".join(str(getattr(self, field.name)) for field in fields(self))
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % HELD_OUT_SHARE == 0

    def claim(self) -> "Claim":
        """Everything there is to say of the scene."""
        return Claim(
            self.noun,
            self.count,
            self.attribute or None,
            self.relation or None,
            self.other or None,
            self.background or None,
        )


@dataclass(frozen=True)
class Claim:
    """What a caption asserts; None is left unsaid, and what is unsaid is not denied."""

    noun: str
    count: int | None  # None: several, "cats"
    attribute: str | None = None
    relation: str | None = None
    other: str | None = None
    background: str | None = None

    def true_of(self, scene: Scene) -> bool:
        if self.background not in (None, scene.background) or self.relation not in (None, scene.relation):
            return False
        if self.relation in SIDES:
            return (self.noun, self.other) == (scene.noun, scene.other) and self.attribute in (None, scene.attribute)
        if self.noun == scene.noun and self.attribute in (None, scene.attribute):
            return scene.count == self.count if self.count is not None else scene.count > 1
        return self.noun == scene.other and self.count == 1 and self.attribute is None


def random_scene(
    rng: random.Random,
    *,
    held_out: bool,
    kinds: Mapping[str, int] = KINDS,
    painted: float = PAINTED_SHARE,
    new: bool = False,
) -> Scene:
    """A scene drawn from the training compositions, or from the held-out ones.

    `kinds` says how often each kind is, `painted` how often its thing is one that is drawn in a colour. With `new` its
    things are those that the demo model has never seen; none of them is painted, none looks out of a window.
    """
    while True:
        scene = _any_scene(rng, kinds, painted, new)
        if scene.held_out == held_out:
            return scene


def _any_scene(
    rng: random.Random, kinds: Mapping[str, int], painted: float = PAINTED_SHARE, new: bool = False
) -> Scene:
    background = rng.choice(list(BACKGROUNDS)) if rng.random() < 0.8 else ""
    kinds = {**kinds, "window": 0} if new else kinds
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "window":
        return Scene(rng.choice(list(ANIMALS)), rng.randint(1, 2), relation=WINDOW, background=background)
    things = list(NEW_THINGS if new else ANIMALS | OBJECTS)
    noun = rng.choice(list(PAINTED)) if not new and rng.random() < painted else rng.choice(things)
    colour = rng.choice(list(COLOURS)) if noun in PAINTED else ""
    if kind == "sides":
        other = rng.choice([name for name in things if name != noun])
        return Scene(noun, 1, colour, rng.choice(SIDES), other, background)
    count = rng.randint(1, 4)
    if kind == "place":
        return Scene(noun, count, colour, rng.choice(list(PLACES)), "", background)
    size = rng.choice(["", *SIZES]) if count == 1 and not colour else ""
    return Scene(noun, count, colour or size, "", "", background)


def near_miss(
    scene: Scene, rng: random.Random, *, exchange: float = 0.0, recount: float = 0.0, rename: float = 0.0
) -> Scene:
    """A training scene that differs from `scene` in one thing that its full caption speaks of.

    `exchange` is how often that is which of two things is where, `recount` how often the number of things, `rename` how
    often the thing itself, each before any other change is thought of.
    """
    while True:
        if scene.other and scene.noun not in PAINTED and rng.random() < exchange:
            changed = replace(scene, noun=scene.other, other=scene.noun)
        elif scene.relation in PLACES and rng.random() < recount:
            changed = replace(scene, count=rng.choice([1, 2, 3, 4]))
        elif rng.random() < rename:
            nouns = list(PAINTED) if scene.noun in PAINTED else _like(scene)
            changed = replace(scene, noun=rng.choice([noun for noun in nouns if noun != scene.other]))
        else:
            changed = _change_one(scene, rng)
        if changed != scene and not changed.held_out:
            return changed


def _change_one(scene: Scene, rng: random.Random) -> Scene:
    match rng.choice(("noun", "count", "count", "attribute", "relation", "relation", "other", "background")):
        case "noun" if scene.noun not in PAINTED:
            return replace(scene, noun=rng.choice([n for n in _like(scene) if n != scene.other]))
        case "noun":
            return replace(scene, noun=rng.choice(list(PAINTED)))
        case "count" if scene.relation == WINDOW:
            return replace(scene, count=3 - scene.count)
        case "count" if scene.relation not in SIDES and scene.attribute not in SIZES:
            return replace(scene, count=rng.choice([1, 2, 3, 4]))
        case "attribute" if scene.noun in PAINTED:
            return replace(scene, attribute=rng.choice(list(COLOURS)))
        case "attribute" if not scene.relation and scene.count == 1:
            return replace(scene, attribute=rng.choice(list(SIZES)))
        case "relation" if scene.relation in PLACES:
            return replace(scene, relation=rng.choice(list(PLACES)))
        case "relation" if scene.relation in SIDES and scene.noun not in PAINTED and rng.random() < 0.7:
            return replace(scene, noun=scene.other, other=scene.noun)
        case "relation" if scene.relation in SIDES:
            return replace(scene, relation=rng.choice(SIDES))
        case "other" if scene.other:
            return replace(scene, other=rng.choice([n for n in ANIMALS | OBJECTS if n != scene.noun]))
        case "background":
            return replace(scene, background=rng.choice(list(BACKGROUNDS)))
    return scene


def _like(scene: Scene) -> list[str]:
    return list(ANIMALS) if scene.relation == WINDOW else list(ANIMALS | OBJECTS)


def part_of(claim: Claim, rng: random.Random) -> Claim:
    """A claim that says less, as people's queries do; true wherever `claim` is true."""
    if claim.background and rng.random() < 0.6:
        claim = replace(claim, background=None)
    if claim.relation and rng.random() < 0.4:
        noun = claim.other if claim.other and rng.random() < 0.5 else claim.noun
        colour = claim.attribute if noun == claim.noun else None
        claim = Claim(noun, claim.count, colour, None, None, claim.background)
    if claim.attribute and rng.random() < 0.3:
        claim = replace(claim, attribute=None)
    if claim.count is not None and claim.count > 1 and rng.random() < 0.25:
        claim = replace(claim, count=None)
    return claim


def bare(claim: Claim, rng: random.Random) -> Claim:
    """A claim that says little more than what there is, as short queries do; true wherever `claim` is true."""
    if claim.other and rng.random() < 0.5:
        return Claim(claim.other, 1)
    count = None if claim.count is not None and claim.count > 1 and rng.random() < 0.4 else claim.count
    return Claim(claim.noun, count, claim.attribute if rng.random() < 0.5 else None)
