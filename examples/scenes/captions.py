"""Claim -> caption, in one of the many ways in which people say it, and captions that are false of a scene."""

import random
import re
from collections.abc import Callable
from dataclasses import replace

from examples.scenes.compose import SIDES, WINDOW, Claim, Scene, near_miss, part_of
from examples.scenes.vocabulary import (
    BACKGROUNDS,
    NUMBERS,
    PLACES,
    PLURALS,
    SYNONYM_PLURALS,
    SYNONYMS,
    THINGS,
    UNDRAWN,
    UNMET,
)

_DRAWN = frozenset([*THINGS, *PLACES, *SYNONYMS.values()])
_ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k l m n p pl pr qu r s sh sl sp st t th tr v w z".split()
_CODAS = "b ck d g ll lt m mp n nd ng nt p r rd rk rn st t tch x".split()
RARELY = 0.1  # how often another word for the same thing or relation is used: a masked word then has one best answer


def phrase(claim: Claim, rng: random.Random, *, plain: bool = False) -> str:
    """One of the many ways to say `claim`; `plain` picks the usual one."""

    def sometimes(share: float) -> bool:
        return not plain and rng.random() < share

    def choose(usual: str, *others: str, share: float = 0.45) -> str:
        return rng.choice(others) if others and sometimes(share) else usual

    subject = _things(claim.noun, claim.count, claim.attribute, sometimes)
    several = claim.count is None or claim.count > 1
    if claim.relation in SIDES:
        other = _things(claim.other or "", 1, None, sometimes)
        if claim.relation == "left":
            ahead = choose("to the left of", "left of", "on the left of")
            back = choose("to the right of", "right of", "on the right of")
        else:
            ahead, back = choose("above", "over", share=RARELY), choose("below", "under", share=RARELY)
        words = (other, back, subject) if sometimes(0.5) else (subject, ahead, other)
        text = " ".join(words)
    elif claim.relation == WINDOW:
        looking = choose("looking out of a window", "looking out of the window", "looking out", "at the window")
        text = f"{subject} {looking}"
    elif claim.relation:
        where = PLACES[claim.relation]
        name = SYNONYMS.get(claim.relation, claim.relation) if sometimes(RARELY) else claim.relation
        preposition = choose(where, *{"in": ("inside",), "under": ("beneath",)}.get(where, ()), share=RARELY)
        place = f"{preposition} {choose(_article(name), 'the')} {name}"
        text = " ".join(filter(None, (subject, choose("", "sitting", "chilling", "waiting"), place)))
    else:
        text = subject
    if claim.background:
        suffix = choose(*BACKGROUNDS[claim.background])
        text = f"{suffix}, {text}" if sometimes(0.15) else f"{text} {suffix}"
    elif sometimes(0.35):
        text = choose("an image of ", "a picture of ", "a photo of ", "there are " if several else "there is ") + text
    if sometimes(0.1):
        text = text[0].upper() + text[1:] + "."
    return text


def terse(text: str) -> str:
    """The text without an article in front, as people type it: "cat", "photo of a cat"."""
    return re.sub(r"^(?:an?|the|one) ", "", text)


def _things(noun: str, count: int | None, attribute: str | None, sometimes: Callable[[float], bool]) -> str:
    name = SYNONYMS[noun] if noun in SYNONYMS and sometimes(RARELY) else noun
    described = " ".join(filter(None, (attribute, name if count == 1 else plural(name))))
    if count is None:
        return described
    if count == 1:
        return f"{'one' if sometimes(0.1) else _article(described)} {described}"
    return f"{NUMBERS[count]} {described}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeio" or (word.startswith(("um", "un")) and not word.startswith("unic")) else "a"


def plural(name: str) -> str:
    irregular = PLURALS | SYNONYM_PLURALS
    if name in irregular:
        return irregular[name]
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def names(noun: str) -> tuple[str, ...]:
    """The words for one of a thing and for several."""
    usual = [noun, *([SYNONYMS[noun]] if noun in SYNONYMS else [])]
    return (*usual, *map(plural, usual))


def foil(scene: Scene, rng: random.Random, *, exchange: float = 0.0, recount: float = 0.0) -> tuple[str, Claim]:
    """A text that is false of `scene`, and what it claims: a near miss, or a caption with a thing that is never drawn.

    `exchange` and `recount` are as for `near_miss`.
    """
    claim = scene.claim()
    if rng.random() < 0.3:
        stranger = rng.choice(UNDRAWN)
        claim = _with_thing(claim, stranger, rng)
        less = part_of(claim, rng)
        claim = less if rng.random() < 0.4 and stranger in (less.noun, less.other) else claim
        return phrase(claim, rng), claim
    while True:
        missed = near_miss(scene, rng, exchange=exchange, recount=recount).claim()
        if missed.true_of(scene):
            continue
        less = part_of(missed, rng)
        claim = less if rng.random() < 0.4 and not less.true_of(scene) else missed
        return phrase(claim, rng), claim


def strange(claim: Claim, rng: random.Random) -> Claim:
    """The claim with a thing in it that is never drawn: a word that was met, one that was not, or one made up."""
    word = rng.choice((rng.choice(UNDRAWN), rng.choice(UNMET), rng.choice(UNMET), _made_up(rng)))
    return _with_thing(claim, word, rng)


def _with_thing(claim: Claim, noun: str, rng: random.Random) -> Claim:
    return replace(claim, other=noun) if claim.other and rng.random() < 0.5 else replace(claim, noun=noun)


def _made_up(rng: random.Random) -> str:
    while True:
        syllables = (rng.choice(_ONSETS) + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
        word = "".join(syllables) + rng.choice(_CODAS)
        if word not in _DRAWN:
            return word
