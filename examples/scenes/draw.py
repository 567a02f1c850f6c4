"""Draw scenes as JPEG files, with their captions: the gallery, or a set to measure on.

    python examples/scenes/draw.py --held-out --count 150 --seed 1 --wanted --out examples/gallery
    python examples/scenes/draw.py --held-out --count 1000 --seed 2 --out runs/heldout
    bt eval runs/heldout/captions.jsonl --model demo --depth 20
    python examples/scenes/draw.py --new --count 1000 --seed 3 --out runs/new

With --held-out no composition among them was ever drawn in training, without it all may have been; with --new their
things are forty that the demo model has never seen. No caption is true of another picture than its own. Needs Pillow
and nothing else.
"""

import argparse
import json
import random
import re
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a script, installed or not

from examples.scenes.captions import phrase
from examples.scenes.compose import KINDS, Scene, random_scene
from examples.scenes.pictures import draw

# What the documentation searches for; each of them is a held-out composition.
WANTED = (
    Scene("cat", 2, "", "couch", "", "desert"),
    Scene("cat", 1, "", "couch", "", "meadow"),
    Scene("cat", 4, "", "couch", "", "sea"),
    Scene("dog", 1, "", "couch", "", "rain"),
    Scene("dog", 3, "", "couch", "", "sunset"),
    Scene("dog", 2, "", "car", "", "city"),
    Scene("cat", 1, "", "window", "", "snow"),
    Scene("cat", 2, "", "window", "", "sea"),
    Scene("cat", 3, "", "bed", "", "sunset"),
    Scene("elephant", 1, "", "umbrella", "", "rain"),
)
SIDES_PX = (320, 360, 400, 427, 480, 512, 540, 600, 640)
LARGEST_ASPECT = 1.6  # wider ones lose part of the scene in the crop of preprocessing


def distinct_scenes(
    count: int, rng: random.Random, first: tuple[Scene, ...] = (), *, held_out: bool = True, new: bool = False
) -> list[Scene]:
    """Scenes of which no full caption is true of another one; `first` come first, and are the only ones at a window:
    who looks out of one then has the answer that they give."""
    scenes = list(first)
    kinds = {**KINDS, "window": 0} if first else KINDS
    assert all(scene.held_out for scene in scenes)
    while len(scenes) < count:
        drawn = random_scene(rng, held_out=held_out, kinds=kinds, new=new)
        if not any(drawn.claim().true_of(scene) or scene.claim().true_of(drawn) for scene in scenes):
            scenes.append(drawn)
    return scenes


def random_size(rng: random.Random) -> tuple[int, int]:
    while True:
        width, height = rng.choice(SIDES_PX), rng.choice(SIDES_PX)
        if max(width, height) <= LARGEST_ASPECT * min(width, height):
            return width, height


def draw_set(folder: Path, scenes: list[Scene], rng: random.Random) -> None:
    """Write the pictures, named after their scenes, and `captions.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as captions:
        for scene in scenes:
            usual = phrase(scene.claim(), rng, plain=True)
            name = re.sub(r"[^a-z]+", "-", usual.lower()) + ".jpg"
            draw(scene, random_size(rng), rng).save(folder / name, quality=80)
            line = {"image": name, "captions": [phrase(scene.claim(), rng)], "scene": asdict(scene)}
            captions.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--held-out", action="store_true", help="only compositions that training never draws")
    parser.add_argument("--wanted", action="store_true", help="begin with the scenes that the documentation names")
    parser.add_argument("--new", action="store_true", help="things that the demo model has never seen")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    first = WANTED if args.wanted else ()
    draw_set(args.out, distinct_scenes(args.count, rng, first, held_out=args.held_out, new=args.new), rng)


if __name__ == "__main__":
    main()
