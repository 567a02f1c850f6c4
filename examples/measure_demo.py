"""Measure a model on drawn pictures: recall@k of both stages, and how often the masked word is found.

    python examples/scenes/draw.py --held-out --count 1000 --seed 2 --out runs/heldout
    python examples/measure_demo.py runs/heldout/captions.jsonl --model demo

Prints one JSON object. Masked are nouns, numbers and relations, one at a time, each in its own caption; "exact" counts
the very word, "meaning" also a word that says the same ("sofa" for "couch").
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np

from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.read import read_captions
from bridgetower.records import Candidate
from bridgetower.retrieval.encode_pictures import load
from bridgetower.retrieval.evaluation import evaluate
from examples.scenes.captions import plural
from examples.scenes.vocabulary import NUMBERS, PLACES, SYNONYMS, THINGS

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


def measure_words(encoder: TorchEncoder, captioned: list[Captioned]) -> dict[str, dict[str, float]]:
    """For each kind of word, and all: how many were asked, and the percentage that came first."""
    outcomes: dict[str, list[tuple[bool, bool]]] = {kind: [] for kind in KINDS}
    for item in captioned:
        picture = encoder.encode_images(load(Candidate(item.image), encoder.preprocessing)[None])
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
    result: dict[str, object] = {"pictures": len(captioned), "precision": encoder.runtime.precision}
    for found in evaluate(encoder, encoder, captioned, depths=args.depth):
        name = found.method + (f"@{found.depth}" if found.depth else "")
        result[name] = {"IR": [round(x, 1) for x in found.ir], "TR": [round(x, 1) for x in found.tr]}
    result["mlm"] = measure_words(encoder, captioned)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
