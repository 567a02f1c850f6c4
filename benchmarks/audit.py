"""`bt audit` on drawn scenes: are false captions told from true ones, and is the wrong word named?

    python benchmarks/audit.py
    python benchmarks/audit.py --pairs 3000 --seed 8 --precision fp32

Draws scenes that training never drew, each with its full caption. One caption in ten is made false by one word: a noun,
a number, a colour, a relation (left, above), a place (a couch) or a background (snow) becomes another of its kind. The
scene itself says that the changed caption is false.

`auc` is how often a true caption has a higher match than a false one, and `flagged_%` how many have less than 0.5. Of
`named_%` the wrong word is named; of `mended_%` the suggestion makes the true caption again, word for word. All pairs
are explained, so that these two also count captions above 0.5. The row `true` has the true captions below 0.5.
"""

import argparse
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from benchmarks.harness import Array, Report
from bridgetower import Audited, Captioned, Model
from examples.scenes.captions import phrase
from examples.scenes.compose import SIDES, Claim, Scene
from examples.scenes.draw import distinct_scenes, random_size
from examples.scenes.pictures import draw
from examples.scenes.vocabulary import ANIMALS, BACKGROUNDS, COLOURS, NUMBERS, OBJECTS, PLACES

KINDS = ("noun", "number", "colour", "relation", "place", "background")
OPPOSITE = {"left": "right", "above": "below", "over": "under"}
OPPOSITE |= {after: before for before, after in OPPOSITE.items()}
FALSE_SHARE = 10  # one caption in ten
TRIES = 40  # changes of a scene, before another one is taken


@dataclass(frozen=True)
class Pair:
    """A caption of a drawn scene; the rest is there where it was made false."""

    caption: str
    kind: str = ""
    at: int = -1  # where the wrong word begins
    right: str = ""  # the caption before


def changed(claim: Claim, kind: str, rng: random.Random) -> Claim | None:
    """The claim with another value of a kind, perhaps the same; None if it has none."""
    match kind:
        case "noun" if claim.noun in ANIMALS | OBJECTS:
            return replace(claim, noun=rng.choice(list(ANIMALS | OBJECTS)))
        case "number" if claim.relation not in SIDES:
            return replace(claim, count=rng.randint(1, 4))
        case "colour" if claim.attribute in COLOURS:
            return replace(claim, attribute=rng.choice(list(COLOURS)))
        case "place" if claim.relation in PLACES:
            return replace(claim, relation=rng.choice(list(PLACES)))
        case "background" if claim.background:
            return replace(claim, background=rng.choice([name for name in BACKGROUNDS if name]))
    return None


def wrong_word(right: str, wrong: str) -> int | None:
    """Where the only word begins that differs; None if there is not exactly one."""
    before, after = (list(re.finditer(r"\w+", text)) for text in (right, wrong))
    differ = [new.start() for old, new in zip(before, after, strict=False) if old[0] != new[0]]
    return differ[0] if len(before) == len(after) and len(differ) == 1 else None


def falsified(scene: Scene, kind: str, rng: random.Random) -> Pair | None:
    """A caption that one word makes false; None if none is found."""
    claim, wording = scene.claim(), rng.random()
    right = phrase(claim, random.Random(wording))
    if kind == "relation":
        words = [word for word in re.finditer(r"\w+", right) if word[0] in OPPOSITE]
        # Told the other way round, the claim is that of a scene in which the things have changed places.
        other = replace(claim, noun=claim.other or "", other=claim.noun, attribute=None)
        if scene.relation not in SIDES or len(words) != 1 or other.true_of(scene):
            return None
        [word] = words
        wrong = right[: word.start()] + OPPOSITE[word[0]] + right[word.end() :]
        return Pair(wrong, kind, word.start(), right)
    for _ in range(TRIES):
        if (other_claim := changed(claim, kind, rng)) is None:
            return None
        wrong = phrase(other_claim, random.Random(wording))  # in the same words
        at = wrong_word(right, wrong)
        if at is None or other_claim.true_of(scene):
            continue
        if kind == "number" and wrong[at:].partition(" ")[0].lower() not in NUMBERS:
            continue  # "a" for "one"
        return Pair(wrong, kind, at, right)
    return None


def pairs(scenes: list[Scene], rng: random.Random) -> Iterator[Pair]:
    """A caption for each scene, one in ten false, of each kind in turn."""
    made = 0
    for number, scene in enumerate(scenes):
        pair = falsified(scene, KINDS[made % len(KINDS)], rng) if made * FALSE_SHARE <= number else None
        made += pair is not None
        yield pair or Pair(phrase(scene.claim(), rng))


def picture(scene: Scene, rng: random.Random) -> bytes:
    """The content of a JPEG file."""
    file = BytesIO()
    draw(scene, random_size(rng), rng).save(file, "JPEG", quality=80)
    return file.getvalue()


def auc(true: Array, false: Array) -> float:
    """How often a true one has the higher match; equal ones count half."""
    return float((true[:, None] > false).mean() + (true[:, None] == false).mean() / 2)


def percent(answers: list[bool]) -> float | None:
    return 100 * sum(answers) / len(answers) if answers else None


def measured(rows: list[tuple[Pair, Audited]], true: Array) -> dict[str, object]:
    """The figures of false captions, against the matches of true ones."""
    mended = [
        row.at is not None
        and f"{row.caption[: row.at]}{row.suggestion}{row.caption[row.at + len(row.word or '') :]}" == pair.right
        for pair, row in rows
    ]
    return {
        "captions": len(rows),
        "auc": auc(true, np.array([row.match for _, row in rows])) if rows else None,
        "flagged_%": percent([row.match < 0.5 for _, row in rows]),
        "named_%": percent([row.at == pair.at for pair, row in rows]),
        "mended_%": percent(mended),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000, help="pictures, each with a caption (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of scenes, words and changes (%(default)s)")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    args = parser.parse_args()
    args.rounds = 1
    rng = random.Random(args.seed)
    scenes = distinct_scenes(args.pairs, rng)
    asked = list(pairs(scenes, rng))
    captioned = [Captioned(picture(scene, rng), [pair.caption]) for scene, pair in zip(scenes, asked, strict=True)]
    found = Model(args.model, precision=args.precision).audit(captioned, worst=1.0)
    by_name = {f"<picture {place}>": pair for place, pair in enumerate(asked)}
    rows = [(by_name[str(row.image)], row) for row in found.rows]
    false = [(pair, row) for pair, row in rows if pair.kind]
    true = np.array([row.match for pair, row in rows if not pair.kind])
    with Report(Path(__file__).stem, args) as report:
        report.add(kind="true", captions=len(true), **{"flagged_%": percent((true < 0.5).tolist())})
        for kind in KINDS:
            report.add(kind=kind, **measured([(pair, row) for pair, row in false if pair.kind == kind], true))
        report.add(kind="all false", **measured(false, true))


if __name__ == "__main__":
    main()
