"""Measure a model on drawn pictures: recall@k of both stages, and what its matching and its word head know.

    python examples/scenes/draw.py --held-out --count 1000 --seed 2 --out runs/heldout
    python examples/measure_demo.py runs/heldout/captions.jsonl --model demo

Prints one JSON object:

- "true_elsewhere": captions that are true of another picture of the set. `draw.py` makes sets without any, so recall
  counts nothing as wrong that is right.
- "rerank", "recall": IR is text to picture, TR picture to text, each at 1, 5 and 10.
- "mlm": nouns, numbers and relations, masked one at a time, each in its own caption; "exact" counts the very word,
  "meaning" also a word that says the same ("sofa" for "couch").
- "minimal_pairs": how often the matching head prefers a true text to one that differs from it in one respect.
- "calibration_error": of the match, over the 20 pictures that recall proposes for each text: the captions, and texts
  that say less; 15 bins of equal size.
- "bare_nouns": precision at 5 of "a cat" and its like, by match; at as many as there are where fewer show one.
- "gallery": "unknown" counts the nouns that training never said, and those that some picture matches at 0.5 or more;
  the match of one picture with "two cats on a couch", and the share of cats in "a <mask> looking out".
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.protocol import Pictures, match_probability
from bridgetower.encoders.runtime import choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.read import read_captions
from bridgetower.records import Candidate
from bridgetower.retrieval.encode_pictures import load
from bridgetower.retrieval.evaluation import evaluate
from bridgetower.retrieval.fill import fill_images
from bridgetower.retrieval.matching import every_pair
from examples.scenes.captions import phrase, plural
from examples.scenes.compose import SIDES, Claim, Scene, part_of
from examples.scenes.masks import AXES
from examples.scenes.vocabulary import NUMBERS, PLACES, SYNONYMS, THINGS, UNHEARD

# Words for one thing, the first the usual one.
_SAME = [(noun, *([SYNONYMS[noun]] if noun in SYNONYMS else [])) for noun in [*THINGS, *PLACES]]
_SAME += [tuple(plural(word) for word in words) for words in _SAME]
NOUNS = {word: words[0] for words in _SAME for word in words}
COUNTS = {word: word for word in NUMBERS if word}
RELATIONS = {
    **{word: word for word in ("left", "right", "on", "behind")},
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "beneath": "below",
    "in": "in",
    "inside": "in",
}
KINDS = {"noun": NOUNS, "number": COUNTS, "relation": RELATIONS}
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above", "over": "under", "under": "over"}
GALLERY = Path(__file__).with_name("gallery")


def masked_words(caption: str) -> list[tuple[str, str, str]]:
    """(kind, masked caption, word) for each noun, number and relation; a background's phrase is none of them."""
    found = []
    # "in the snow" or "on the grass" say where the scene is, "in a box" and "on the couch" what holds the thing.
    for match in re.finditer(r"[a-z]+", caption.lower()):
        word = match.group()
        for kind, words in KINDS.items():
            if word not in words:
                continue
            place = re.match(r"(?: the left| the right| a| an| the) (?:of )?([a-z]+)", caption.lower()[match.end() :])
            if word in ("on", "in") and not (place and NOUNS.get(place[1]) in PLACES):
                continue  # of a background, or of "on the left of"
            found.append((kind, caption[: match.start()] + "<mask>" + caption[match.end() :], word))
    return found


def encoded(encoder: TorchEncoder, captioned: list[Captioned]) -> list[Pictures]:
    """The features of each picture."""
    return [encoder.encode_images(load(Candidate(item.image), encoder.preprocessing)[None]) for item in captioned]


def recalled(encoder: TorchEncoder, text: str, pictures: list[Pictures]) -> npt.NDArray[np.int64]:
    """The rows of the pictures that a search would verify, best first."""
    vectors = np.concatenate([picture.vectors for picture in pictures if picture.vectors is not None])
    best = np.argsort(-(encoder.embed_texts([text]) @ vectors.T)[0], kind="stable")
    return best[: encoder.default_depth]


def best_matches(
    encoder: TorchEncoder, text: str, pictures: list[Pictures]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows of the pictures that a search verifies, by match, and their matches."""
    rows = recalled(encoder, text, pictures)
    candidates = encoder.join([pictures[row] for row in rows])
    matches = match_probability(encoder.match(encoder.encode_texts([text]), candidates, every_pair(1, len(rows))))
    order = np.argsort(-matches, kind="stable")
    return rows[order], matches[order]


def minimal_pairs(scene: Scene, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(kind, a text that is true of the scene, one that is not): one word, or the places of two things, differ."""
    claim, state = scene.claim(), rng.getstate()

    def said(changed: Scene) -> str:
        rng.setstate(state)  # in the same way
        return phrase(changed.claim(), rng)

    text = said(scene)
    if scene.relation in SIDES:
        words = "|".join(AXES[scene.relation])
        kind = "left/right" if scene.relation == "left" else "above/below"
        yield kind, text, re.sub(rf"\b({words})\b", lambda found: OPPOSITES[found[1]], text)
        if claim.attribute is None:
            yield "things exchanged", text, said(replace(scene, noun=scene.other, other=scene.noun))
    elif scene.count in (2, 3):
        yield "two/three", text, said(replace(scene, count=5 - scene.count))


def measure_minimal_pairs(encoder: TorchEncoder, scenes: list[Scene], pictures: list[Pictures]) -> dict[str, object]:
    """For each kind: how many were asked, and the percentage in which the true text has the higher match."""
    outcomes: dict[str, list[bool]] = {}
    for number, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        for kind, true, false in minimal_pairs(scene, random.Random(number)):
            logits = encoder.match(encoder.encode_texts([true, false]), picture, every_pair(2, 1))
            margin = logits[:, 1] - logits[:, 0]
            outcomes.setdefault(kind, []).append(bool(margin[0] > margin[1]))
    outcomes["all"] = [outcome for rows in outcomes.values() for outcome in rows]
    return {
        kind: {"asked": len(rows), "right": round(100 * float(np.mean(rows)), 1)} for kind, rows in outcomes.items()
    }


def calibration_error(probabilities: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance of the probability from how often it is right, over bins of equal size."""
    order = np.argsort(probabilities, kind="stable")
    gaps = [
        abs(float(probabilities[part].mean() - right[part].mean())) * len(part)
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return sum(gaps) / len(order)


def measure_calibration(
    encoder: TorchEncoder, captioned: list[Captioned], scenes: list[Scene], pictures: list[Pictures]
) -> dict[str, float]:
    """The calibration error of the match over the candidates of each caption, and of each text that says less."""
    rng = random.Random(0)
    less = [part_of(scene.claim(), rng) for scene in scenes]
    asked = {
        "captions": ([scene.claim() for scene in scenes], [item.captions[0] for item in captioned]),
        "less": (less, [phrase(claim, rng) for claim in less]),
    }
    errors = {}
    for name, (claims, texts) in asked.items():
        probabilities, right = [], []
        for claim, text in zip(claims, texts, strict=True):
            rows, matches = best_matches(encoder, text, pictures)
            probabilities += matches.tolist()
            right += [claim.true_of(scenes[row]) for row in rows]
        errors[name] = round(calibration_error(np.array(probabilities), np.array(right)), 4)
    return errors


def measure_bare_nouns(encoder: TorchEncoder, scenes: list[Scene], pictures: list[Pictures]) -> float:
    """The share of right pictures among the first five for the name of one thing, over all things."""
    precisions = []
    for noun in THINGS:
        claim = Claim(noun, 1)
        top = min(5, sum(map(claim.true_of, scenes)))
        if top:
            rows, _ = best_matches(encoder, phrase(claim, random.Random(0), plain=True), pictures)
            precisions.append(float(np.mean([claim.true_of(scenes[row]) for row in rows[:top]])))
    return round(float(np.mean(precisions)), 3)


def measure_gallery(encoder: TorchEncoder) -> dict[str, object]:
    """Figures of the documentation."""
    captioned = read_captions(GALLERY / "captions.jsonl")
    pictures = encoded(encoder, captioned)
    [couch] = [
        pictures[row] for row, item in enumerate(captioned) if item.image.stem == "two-cats-on-a-couch-in-the-desert"
    ]
    logits = encoder.match(encoder.encode_texts(["two cats on a couch"]), couch, every_pair(1, 1))
    text = "a <mask> looking out"
    candidates = [Candidate(captioned[row].image) for row in recalled(encoder, text, pictures)]
    words = fill_images(encoder, text, candidates, top=50).words
    cats = sum(word.probability for word in words if word.token in ("cat", "cats"))
    unknown = [
        best_matches(encoder, phrase(Claim(noun, 1), random.Random(0), plain=True), pictures)[1][0] >= 0.5
        for noun in UNHEARD
    ]
    return {
        "two cats on a couch": round(float(match_probability(logits)[0]), 3),
        "cats looking out": round(cats, 3),
        "unknown": {"asked": len(unknown), "matched": sum(map(bool, unknown))},
    }


def measure_words(
    encoder: TorchEncoder, captioned: list[Captioned], pictures: list[Pictures]
) -> dict[str, dict[str, float]]:
    """For each kind of word, and all: how many were asked, and the percentage that came first."""
    outcomes: dict[str, list[tuple[bool, bool]]] = {kind: [] for kind in KINDS}
    for item, picture in zip(captioned, pictures, strict=True):
        for kind, masked, word in masked_words(item.captions[0]):
            scores = encoder.predict_masked(encoder.encode_texts([masked]), picture).log_probabilities[0, 0]
            guess = encoder.word(int(scores.argmax())).lower()
            meaning = KINDS[kind]
            outcomes[kind].append((guess == word, meaning.get(guess, guess) == meaning[word]))
    outcomes["all"] = [outcome for kind in KINDS for outcome in outcomes[kind]]
    return {
        kind: {
            "asked": len(rows),
            "exact": round(100 * float(np.mean([exact for exact, _ in rows])), 1),
            "meaning": round(100 * float(np.mean([same for _, same in rows])), 1),
        }
        for kind, rows in outcomes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--depth", type=int, nargs="*", default=[20])
    args = parser.parse_args()

    encoder = TorchEncoder(resolve(args.model), choose_runtime("auto", args.precision))
    captioned = read_captions(args.captions)
    scenes = [Scene(**json.loads(line)["scene"]) for line in args.captions.read_text("utf-8").splitlines()]
    elsewhere = sum(one.claim().true_of(other) for one in scenes for other in scenes if other is not one)
    result: dict[str, object] = {
        "pictures": len(captioned),
        "precision": encoder.runtime.precision,
        "true_elsewhere": elsewhere,
    }
    for found in evaluate(encoder, encoder, captioned, depths=args.depth):
        name = found.method + (f"@{found.depth}" if found.depth else "")
        result[name] = {"IR": [round(x, 1) for x in found.ir], "TR": [round(x, 1) for x in found.tr]}
    pictures = encoded(encoder, captioned)
    result["mlm"] = measure_words(encoder, captioned, pictures)
    result["minimal_pairs"] = measure_minimal_pairs(encoder, scenes, pictures)
    result["calibration_error"] = measure_calibration(encoder, captioned, scenes, pictures)
    result["bare_nouns"] = measure_bare_nouns(encoder, scenes, pictures)
    result["gallery"] = measure_gallery(encoder)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
