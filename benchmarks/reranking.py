"""One text with 20 candidates -> matching logits, cold and from cached features, against `transformers`.

    python benchmarks/reranking.py --size base large

Cold is everything from preprocessed pixels to logits; cached is what a query costs when the vision tower has seen the
candidates before: the text tower once, then the cross-modal encoder on each.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import flops, peer
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import DOCUMENTED, EXPERT, PRECISIONS, Array, Contender, compare_each_size, network_command_line
from benchmarks.pictures import photo
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.protocol import Pictures, Pixels
from bridgetower.encoders.runtime import choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.pictures.preprocess import preprocess
from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE
from bridgetower.retrieval.matching import every_pair

TEXT = "two cats on a couch, and a dog in a car"
CANDIDATES = 20
BATCHES = [slice(start, start + PICTURES_AT_ONCE) for start in range(0, CANDIDATES, PICTURES_AT_ONCE)]
PAIRS = every_pair(1, PICTURES_AT_ONCE)
# Of the difference from fp32, relative to the largest logit.
LIMITS = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.3}


def contenders(size: str, args: argparse.Namespace) -> Iterator[Contender]:
    found = resolve(str(checkpoint(size, args.work)))
    pictures = [photo(seed) for seed in range(CANDIDATES)]
    tokens = len(found.tokenizer().encode(TEXT).ids)
    query = flops.text(found.config, tokens) + CANDIDATES * flops.pair(found.config, tokens)
    everything = query + CANDIDATES * (flops.image(found.config) + flops.projections(found.config))

    def prepared(precision: str) -> tuple[TorchEncoder, Pixels]:
        encoder = TorchEncoder(found, choose_runtime(args.device, precision))
        return encoder, np.stack([preprocess(picture, found.preprocessing) for picture in pictures])

    def matched(encoder: TorchEncoder, batches: Sequence[Callable[[], Pictures]]) -> Array:
        """Match batch by batch, as a search does, so that no more features are in memory than those of a batch."""
        text = encoder.encode_texts([TEXT])
        return np.concatenate([encoder.match(text, batch(), PAIRS) for batch in batches])

    def cold(precision: str) -> Callable[[], Array]:
        encoder, pixels = prepared(precision)
        batches = [partial(encoder.encode_images, pixels[rows]) for rows in BATCHES]
        return lambda: matched(encoder, batches)

    def cached(precision: str) -> Callable[[], Array]:
        encoder, pixels = prepared(precision)
        kept = [encoder.pack(encoder.encode_images(pixels[rows])) for rows in BATCHES]  # bytes, as they are on the disk
        batches = [lambda some=some: encoder.join([encoder.unpack(one) for one in some]) for some in kept]
        return lambda: matched(encoder, batches)

    documented = partial(peer.match_documented, found.folder, args.device, pictures, TEXT)
    yield Contender(DOCUMENTED, "fp32", documented, CANDIDATES, everything)
    for precision in ("fp32", "bf16"):
        expert = partial(peer.match_expert, found.folder, args.device, precision, pictures, TEXT)
        yield Contender(EXPERT, precision, expert, CANDIDATES, everything)
    for precision in PRECISIONS:
        yield Contender("bt, cold", precision, partial(cold, precision), CANDIDATES, everything)
        yield Contender("bt, cached", precision, partial(cached, precision), CANDIDATES, query)


def error(logits: Array, reference: Array) -> float:
    """The largest difference, as a share of the largest logit."""
    return float(np.abs(logits - reference).max() / np.abs(reference).max())


def parser() -> argparse.ArgumentParser:
    return network_command_line(__doc__)


def main() -> None:
    args = parser().parse_args()
    compare_each_size(Path(__file__).stem, args, contenders, unit="candidates", error=error, limits=LIMITS)


if __name__ == "__main__":
    main()
