"""Texts with words hidden, and what they are true of: a scene fits where some words in the gaps make the text true.

"a <mask> on a couch" is true of every single thing on a couch, "two cats in the <mask>" of two cats in the snow,
in the rain or in a car.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from examples.scenes.captions import names
from examples.scenes.compose import Claim, Scene
from examples.scenes.vocabulary import BACKGROUNDS, NUMBERS, PLACES

MASK = "<mask>"
AXES = {"left": ("left", "right"), "above": ("above", "below", "over", "under")}
# {what stands before the word of a backdrop: {backdrop: word}}, where nothing follows the word.
BACKDROPS: dict[str, dict[str, str]] = {}
for _background, _phrases in BACKGROUNDS.items():
    for _phrase in _phrases:
        if _found := re.fullmatch(r"(at|by the|in the|in a|on the) (\w+)", _phrase):
            BACKDROPS.setdefault(_found[1], {})[_background] = _found[2]
_WHERE = re.compile(r"\b(at|by the|(?:in|inside|on|behind) (?:an?|the)) (\w+)\b", re.IGNORECASE)
_UNDER = re.compile(r"\b(?:under|beneath|below) an? $", re.IGNORECASE)


@dataclass(frozen=True)
class Gap:
    """A hidden word: the field of the claim that it tells, and what stands before the word of a place or backdrop."""

    kind: str
    opening: str = ""

    def filled(self, claim: Claim, scene: Scene) -> Iterator[Claim]:
        """The claim with what the scene has in this gap: nothing else can make it true of the scene."""
        match self.kind:
            case "noun":
                yield from (replace(claim, noun=noun) for noun in (scene.noun, scene.other) if noun)
            case "other":
                yield replace(claim, other=scene.other)
            case "count":
                yield replace(claim, count=None)
            case "attribute" if scene.attribute:
                yield replace(claim, attribute=scene.attribute)
            case "side":
                yield claim
                if claim.attribute is None:
                    yield replace(claim, noun=claim.other or "", other=claim.noun)
            case "relation" | "background":  # "in the <mask>" may ask for either, if the text has no other
                open_claim = (
                    replace(claim, relation=None) if self.kind == "relation" else replace(claim, background=None)
                )
                preposition = self.opening.split()[0].replace("inside", "in")
                if open_claim.relation is None and PLACES.get(scene.relation) == preposition:
                    yield replace(open_claim, relation=scene.relation)
                if open_claim.background is None and scene.background in BACKDROPS.get(self.opening, {}):
                    yield replace(open_claim, background=scene.background)


@dataclass(frozen=True)
class MaskedClaim:
    """The claim of a text with gaps."""

    claim: Claim
    gaps: tuple[Gap, ...]

    def true_of(self, scene: Scene) -> bool:
        claims = {self.claim}
        for gap in self.gaps:
            claims = {filled for claim in claims for filled in gap.filled(claim, scene)}
        return any(claim.true_of(scene) for claim in claims)


def mask(text: str, claim: Claim, rng: random.Random, *, words: int = 1) -> tuple[str, MaskedClaim]:
    """Hide some words of a text that `phrase` made of `claim`, or as many as can be hidden."""
    found = _gaps(text, claim)
    chosen = sorted(rng.sample(found, min(words, len(found))), key=lambda one: one[0], reverse=True)
    for start, end, _ in chosen:
        text = text[:start] + MASK + text[end:]
    # "an" would tell how the word begins, "a" leaves it open.
    text = re.sub(rf"\b([Aa])n {MASK}", rf"\1 {MASK}", text)
    return text, MaskedClaim(claim, tuple(gap for *_, gap in chosen))


def _gaps(text: str, claim: Claim) -> list[tuple[int, int, Gap]]:
    """Each word that may be hidden: where it begins and ends, and its gap."""
    said = {
        "noun": names(claim.noun),
        "other": names(claim.other) if claim.other else (),
        "count": (NUMBERS[claim.count],) if claim.count and claim.count > 1 else (),
        "attribute": (claim.attribute,) if claim.attribute else (),
        "side": AXES.get(claim.relation or "", ()),
    }
    found = []
    for kind, words in said.items():
        match = re.search(rf"\b(?:{'|'.join(words)})\b", text, re.IGNORECASE) if words else None
        # "under a <mask>" may ask for a thing or for a tree.
        if match and not _UNDER.search(text[: match.start()]):
            found.append((*match.span(), Gap(kind)))
    for match in _WHERE.finditer(text):
        opening, word = match[1].lower().replace(" an", " a"), match[2].lower()
        if word in BACKDROPS.get(opening, {}).values():
            found.append((*match.span(2), Gap("background", opening)))
        elif claim.relation in PLACES and word in names(claim.relation):
            found.append((*match.span(2), Gap("relation", opening)))
    return found
