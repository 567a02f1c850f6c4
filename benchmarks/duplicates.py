"""Duplicates: how many pairs of copies `bt duplicates` finds, how many of what it finds are copies, and the time.

    python benchmarks/duplicates.py --scenes 2000 --seed 2
    python benchmarks/duplicates.py --scenes 0 --vectors 80000

Pictures of scenes are drawn (examples/scenes). Of a sixth of them there is another picture that differs in one thing,
of another sixth one of the same scene drawn again, with everything moved a little; four in ten have one to three
copies: encoded again (JPEG or WebP, quality 60 to 90), scaled (50 to 150%) or cropped (3 to 10% off each side). A pair
is right if both are copies of one picture, or one is a copy of the other. All pairs of a group count. Against it stand
the vectors alone, with all pairs at or above a similarity. The constants were chosen with seed 1.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.clouds import Clouds
from benchmarks.harness import Report
from bridgetower import Library
from bridgetower.index.reader import IndexReader
from bridgetower.retrieval.duplicates.groups import NEAR
from bridgetower.retrieval.duplicates.near import near_pairs
from bridgetower.retrieval.duplicates.there import Content, contents_there
from examples.scenes.compose import near_miss
from examples.scenes.draw import distinct_scenes, random_size
from examples.scenes.pictures import draw

KINDS = ("jpeg", "webp", "scaled", "cropped")
COPIED = 0.4  # share of the scenes
THRESHOLDS = (0.85, 0.95, 0.99)
DIM = 512

Pair = tuple[str, str]  # names of files, in order


def draw_pictures(folder: Path, scenes: int, seed: int) -> None:
    """Write pictures, each named by its scene, a letter for each picture of it, and by what was done to a copy."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    sixth = scenes // 6
    for number, scene in enumerate(distinct_scenes(scenes - 2 * sixth, rng, held_out=False)):
        size, spread = random_size(rng), rng.random()
        picture = draw(scene, size, random.Random(spread))
        picture.save(folder / f"{number:04}a.jpg", quality=92)
        if rng.random() < COPIED:
            for copy in range(rng.choice((1, 1, 2, 3))):
                save_copy(picture, folder, f"{number:04}a-{copy}", rng)
        if number < sixth:  # drawn alike, but for the one thing
            draw(near_miss(scene, rng), size, random.Random(spread)).save(folder / f"{number:04}b.jpg", quality=92)
        elif number < 2 * sixth:
            draw(scene, size, random.Random(rng.random())).save(folder / f"{number:04}c.jpg", quality=92)


def save_copy(picture: Image.Image, folder: Path, name: str, rng: random.Random) -> None:
    kind, (width, height) = rng.choice(KINDS), picture.size
    if kind == "scaled":
        factor = rng.uniform(0.5, 1.5)
        picture = picture.resize((round(width * factor), round(height * factor)), Image.Resampling.LANCZOS)
    elif kind == "cropped":
        left, top, right, bottom = (rng.uniform(0.03, 0.10) for _ in range(4))
        picture = picture.crop(
            (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
        )
    suffix = "webp" if kind == "webp" else "jpg"
    picture.save(folder / f"{name}-{kind}.{suffix}", quality=rng.randint(60, 90))


def is_right(pair: Pair) -> bool:
    one, other = pair
    return one[:5] == other[:5]


def pairs_of(names: Iterable[str]) -> Iterator[Pair]:
    yield from combinations(sorted(names), 2)


def names_of(one: Content, other: Content) -> Pair:
    first, second = sorted(content.files[0].path.name for content in (one, other))
    return first, second


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def measure(report: Report, scenes: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, index = Path(scratch) / "pictures", Path(scratch) / "index"
        draw_pictures(folder, scenes, seed)
        names = [path.name for path in folder.iterdir()]
        true = {pair for pair in pairs_of(names) if is_right(pair)}
        with Library(index, "demo") as library:
            library.index([folder])
            begin = time.perf_counter()
            groups = library.duplicates().groups
            seconds = time.perf_counter() - begin
        found = {pair for group in groups for pair in pairs_of(one.path.name for one in (group.keep, *group.others))}
        for kind in KINDS:
            some = {pair for pair in true if any(f"-{kind}." in name for name in pair)}
            report.add(of=f"pairs with one that is {kind}", pairs=len(some), recall=share(len(some & found), len(some)))
        report.add(**judged("bt duplicates", true, found), pictures=len(names), seconds=seconds)
        with IndexReader.open(index) as reader:
            there = contents_there(reader)
        near = near_pairs(there.vectors, min(THRESHOLDS))
        for threshold in THRESHOLDS:
            alone: set[Pair] = {
                names_of(there.contents[kept], there.contents[other])
                for kept, other, similarity in near.rows()
                if similarity >= threshold
            }
            report.add(**judged(f"vectors alone, from {threshold}", true, alone))


def judged(contender: str, true: set[Pair], found: set[Pair]) -> dict[str, object]:
    """A row: of all right pairs those that were found, and of those that were found the right ones."""
    wrong = [pair for pair in found if not is_right(pair)]
    near_misses = sum(one[:4] == other[:4] for one, other in wrong)
    right = len(found) - len(wrong)
    return {
        "of": contender,
        "pairs": len(true),
        "recall": share(right, len(true)),
        "precision": share(right, len(found)),
        "wrong_pairs": len(wrong),
        "of_one_scene": near_misses,
    }


def measure_vectors(report: Report, number: int) -> None:
    """Time the comparison of so many vectors; every twentieth is one before it, with a little noise."""
    clouds, rng = Clouds(DIM), np.random.default_rng(0)
    vectors = np.concatenate([clouds.pictures(block, 10_000) for block in range(-(-number // 10_000))])[:number]
    copies = np.arange(20, number, 20)
    vectors[copies] = vectors[copies - 10] + rng.standard_normal((len(copies), DIM), np.float32) * 0.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = vectors.astype(np.float16)
    begin = time.perf_counter()
    found = near_pairs(stored, NEAR)
    seconds = time.perf_counter() - begin
    pairs = {(kept, other) for kept, other, _ in found.rows()}
    if not pairs >= {(at - 10, at) for at in copies.tolist()}:
        raise SystemExit("near vectors were missed")
    report.add(vectors=number, dim=DIM, least=NEAR, pairs=len(pairs), seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="pictures without copies; 0 for none (%(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--vectors", type=int, default=0, help="time the comparison of so many (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    parser.set_defaults(rounds=1)
    args = parser.parse_args()
    with Report(Path(__file__).stem, args) as report:
        if args.scenes:
            measure(report, args.scenes, args.seed)
        if args.vectors:
            measure_vectors(report, args.vectors)


if __name__ == "__main__":
    main()
