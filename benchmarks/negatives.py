"""Pictures of one thing without another: texts that must not be true, against subtracting vectors and a plain search.

    python benchmarks/negatives.py --queries 50 --seed 2

For each query held-out scenes are drawn: of a thing with a background, a place or a second thing, and of the same thing
without it, among those of all other queries. Counted is how many of the first five pictures show the one and not the
other, by the claims of their scenes; `show the one` and `show the other` tell what is wrong with the rest. The second
text is said in two ways: in full ("a cat in the snow"), and as people do who know that the first one is given ("in the
snow"). All contenders ask the same index.

    plain                    the first text alone
    subtracted               recall by its vector less that of the second one, as tools without verification do
    subtracted, verified     that, and the first text verifies
    not                      `bt search "a cat" --not "in the snow"`
    not, min-match           the same with `--min-match 0.5`, which may show fewer than five: see `a query`
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Report
from bridgetower import Found, Library
from examples.scenes.captions import phrase
from examples.scenes.compose import SIDES, Claim, Scene
from examples.scenes.draw import random_size
from examples.scenes.pictures import draw
from examples.scenes.vocabulary import ANIMALS, BACKGROUNDS, OBJECTS, PLACES

TOP = 5
LEAST_MATCH = 0.5
KINDS = ("background", "place", "thing")
WITH, WITHOUT = 8, 12  # pictures of a query
LEAST = 3  # compositions that have both, each of which may be drawn more than once
THINGS = sorted(ANIMALS | OBJECTS)


@dataclass(frozen=True)
class Query:
    """A thing that is wanted, and a claim that must not be true of its pictures."""

    kind: str
    noun: str
    refused: Claim
    alone: str  # the claim as it is said beside the first text

    @property
    def wanted(self) -> Claim:
        return Claim(self.noun, 1)

    def is_right(self, scene: Scene) -> bool:
        return self.wanted.true_of(scene) and not self.refused.true_of(scene)

    def texts(self, said: str, rng: random.Random) -> tuple[str, str]:
        """The text of the thing, and the one that must not be true."""
        refused = self.alone if said == "alone" else phrase(self.refused, rng, plain=True)
        return phrase(self.wanted, rng, plain=True), refused


def scenes_of(noun: str) -> Iterator[Scene]:
    """All held-out scenes of a single thing, in places, beside others, and alone."""
    for background in BACKGROUNDS:
        for size in ("", "small", "big"):
            yield from _held_out(Scene(noun, 1, size, background=background))
        for place in PLACES:
            yield from _held_out(Scene(noun, 1, relation=place, background=background))
        for side in SIDES:
            for other in THINGS:
                if other != noun:
                    yield from _held_out(Scene(noun, 1, relation=side, other=other, background=background))
                    yield from _held_out(Scene(other, 1, relation=side, other=noun, background=background))


def _held_out(scene: Scene) -> Iterator[Scene]:
    if scene.held_out:
        yield scene


def queries_of(kind: str, noun: str) -> list[Query]:
    """All queries for a thing that refuse something of a kind."""
    plain = random.Random(0)
    if kind == "background":
        said = {background: phrases[0] for background, phrases in BACKGROUNDS.items() if phrases}
        return [Query(kind, noun, Claim(noun, 1, background=name), alone) for name, alone in said.items()]
    if kind == "place":
        thing = phrase(Claim(noun, 1), plain, plain=True)
        claims = [Claim(noun, 1, relation=place) for place in PLACES]
        return [Query(kind, noun, one, phrase(one, plain, plain=True).removeprefix(thing).strip()) for one in claims]
    others = [Claim(other, 1) for other in THINGS if other != noun]
    return [Query(kind, noun, other, phrase(other, plain, plain=True)) for other in others]


def drawn(queries: int, rng: random.Random) -> tuple[list[Query], list[Scene]]:
    """Queries, each of another thing, and the scenes of all."""
    asked: list[Query] = []
    scenes: list[Scene] = []
    for noun in rng.sample(THINGS, len(THINGS)):
        if len(asked) == queries:
            break
        of_noun = list(scenes_of(noun))
        possible = queries_of(KINDS[len(asked) % len(KINDS)], noun)
        for query in rng.sample(possible, len(possible)):
            both = [scene for scene in of_noun if not query.is_right(scene)]
            if len(both) >= LEAST:
                right = [scene for scene in of_noun if query.is_right(scene)]
                scenes += [*_mixed(right, WITHOUT, rng), *(_mixed(both, WITH, rng) * WITH)[:WITH]]
                asked.append(query)
                break
    return asked, scenes


def _mixed(scenes: list[Scene], most: int, rng: random.Random) -> list[Scene]:
    """Some of these scenes: as many with a second thing as without, where there are."""
    kinds = [[scene for scene in scenes if bool(scene.other) == beside] for beside in (False, True)]
    shuffled = [rng.sample(some, len(some)) for some in kinds]
    half = most // 2
    found = shuffled[0][: max(half, most - len(shuffled[1]))]
    return [*found, *shuffled[1][: most - len(found)]]


def contenders(library: Library) -> dict[str, Callable[[str, str], Found]]:
    """How each answers with the first pictures for a text, and one that must not be true."""
    encoder = library.model.encoder

    def difference(text: str, refused: str) -> np.ndarray:
        wanted, other = encoder.embed_texts([text, refused])
        vector: np.ndarray = wanted - other
        return vector / np.linalg.norm(vector)

    return {
        "plain": lambda text, _: library.search(text, top=TOP),
        "subtracted": lambda text, refused: library.search(vector=difference(text, refused), top=TOP),
        "subtracted, verified": lambda text, refused: library.search(text, vector=difference(text, refused), top=TOP),
        "not": lambda text, refused: library.search(text, without=refused, top=TOP),
        "not, min-match": lambda text, refused: library.search(text, without=refused, top=TOP, min_match=LEAST_MATCH),
    }


def shown(found: Found, scenes: list[Scene]) -> list[Scene]:
    """Return the scenes of hits."""
    return [scenes[int(hit.path.stem)] for hit in found.hits]


def precisions(found: list[tuple[Query, list[Scene]]]) -> dict[str, float]:
    """Shares of the first pictures: right ones by kind of query and of all; those that show the one, and the other; and
    how many there are."""

    def share(holds: Callable[[Query, Scene], bool], kinds: Sequence[str] = KINDS) -> float:
        counted = [holds(query, scene) for query, some in found if query.kind in kinds for scene in some]
        return sum(counted) / len(counted)

    present = {query.kind for query, some in found if some}
    return {
        **{kind: share(Query.is_right, [kind]) for kind in KINDS if kind in present},
        "all": share(Query.is_right),
        "show the one": share(lambda query, scene: query.wanted.true_of(scene)),
        "show the other": share(lambda query, scene: query.refused.true_of(scene)),
        "a query": sum(len(some) for _, some in found) / len(found),
    }


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=50, help=f"each with {WITH + WITHOUT} pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of what is drawn (%(default)s)")
    parser.add_argument("--model", default="demo", help="(%(default)s)")
    parser.add_argument("--precision", default="fp32", help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    parser.set_defaults(rounds=1)
    return parser


def main() -> None:
    args = parser().parse_args()
    rng = random.Random(args.seed)
    queries, scenes = drawn(args.queries, rng)
    with tempfile.TemporaryDirectory() as folder, Report(Path(__file__).stem, args) as report:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for number, scene in enumerate(scenes):
            draw(scene, random_size(rng), rng).save(pictures / f"{number:05}.jpg", quality=80)
        with Library(Path(folder) / "index", args.model, precision=args.precision) as library:
            library.index([pictures])
            for said in ("in full", "alone"):
                for name, ask in contenders(library).items():
                    found = [(query, shown(ask(*query.texts(said, rng)), scenes)) for query in queries]
                    report.add(said=said, contender=name, pictures=len(scenes), **precisions(found))


if __name__ == "__main__":
    main()
