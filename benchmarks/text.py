"""Texts -> vectors, one by one and in a batch, against `transformers` and against the GEMM ceiling.

    python benchmarks/text.py --size base large

From strings to vectors in memory; the documented use runs the whole network, and so needs a picture.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import flops, peer
from benchmarks.checkpoints import checkpoint
from benchmarks.embedding import LIMITS, error
from benchmarks.harness import DOCUMENTED, EXPERT, PRECISIONS, Array, Contender, compare_each_size, network_command_line
from benchmarks.pictures import photo
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder

ANIMALS = ("cat", "dog", "bird", "horse", "frog", "fox", "bear", "fish")
TEXTS = [f"a {one} on a couch, and a {other} in a car" for one in ANIMALS for other in ANIMALS[:4]]
ONE_BY_ONE = 4  # of the texts: each is a full forward of the documented use


def contenders(size: str, args: argparse.Namespace) -> Iterator[Contender]:
    found = resolve(str(checkpoint(size, args.work)))
    tokenizer = found.tokenizer()
    lengths = [len(tokenizer.encode(text).ids) for text in TEXTS]
    flop = [flops.text(found.config, length) for length in lengths]

    def bt(precision: str, texts: list[str], batch: int) -> Callable[[], Array]:
        encoder = TorchEncoder(found, choose_runtime(args.device, precision))
        batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
        return lambda: np.concatenate([encoder.embed_texts(some) for some in batches])

    documented = partial(peer.embed_text_documented, found.folder, args.device, photo(0), TEXTS[:ONE_BY_ONE])
    yield Contender(DOCUMENTED, "fp32", documented, ONE_BY_ONE, sum(flop[:ONE_BY_ONE]))
    for how, count, batch in (("one by one", ONE_BY_ONE, 1), (f"batch of {len(TEXTS)}", len(TEXTS), len(TEXTS))):
        texts, needed = TEXTS[:count], sum(flop[:count])
        for precision in ("fp32", "bf16"):
            expert = partial(peer.embed_text_expert, found.folder, args.device, precision, texts, batch)
            yield Contender(f"{EXPERT}, {how}", precision, expert, count, needed)
        for precision in PRECISIONS:
            yield Contender(f"bt, {how}", precision, partial(bt, precision, texts, batch), count, needed)


def first_error(vectors: Array, reference: Array) -> float:
    """The reference has the first texts only."""
    return error(vectors[: len(reference)], reference)


def parser() -> argparse.ArgumentParser:
    return network_command_line(__doc__)


def main() -> None:
    args = parser().parse_args()
    compare_each_size(Path(__file__).stem, args, contenders, unit="texts", error=first_error, limits=LIMITS)


if __name__ == "__main__":
    main()
