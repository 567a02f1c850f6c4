"""Pictures -> vectors: how many a second, against `transformers` and against the GEMM ceiling.

    python benchmarks/embedding.py --size base large

From pixels in memory, preprocessed, to vectors in memory. The whole of `bt index`, with files, is indexing.py.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import flops, peer
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import DOCUMENTED, EXPERT, PRECISIONS, Array, Contender, compare_each_size, network_command_line
from benchmarks.pictures import photo
from bridgetower.checkpoints.find import resolve
from bridgetower.encoders.runtime import BATCH_SIZE, choose_runtime
from bridgetower.encoders.torch_encoder import TorchEncoder
from bridgetower.pictures.preprocess import preprocess

TEXT = "two cats on a couch, and a dog in a car"
LIMITS = {"fp32": 1e-5, "bf16": 1e-3, "int8": 1e-2}  # of 1 - cosine, from fp32


def contenders(size: str, args: argparse.Namespace) -> Iterator[Contender]:
    folder = checkpoint(size, args.work)
    pictures = [photo(seed) for seed in range(args.pictures)]
    flop = args.pictures * flops.image(resolve(str(folder)).config)

    def bt(precision: str) -> Callable[[], Array]:
        encoder = TorchEncoder(resolve(str(folder)), choose_runtime(args.device, precision))
        pixels = np.stack([preprocess(picture, encoder.preprocessing) for picture in pictures])
        return partial(encoder.embed_images, pixels)

    documented = partial(peer.embed_documented, folder, args.device, pictures, TEXT)
    yield Contender(DOCUMENTED, "fp32", documented, args.pictures, flop)
    for precision in ("fp32", "bf16"):
        expert = partial(peer.embed_expert, folder, args.device, precision, pictures)
        yield Contender(EXPERT, precision, expert, args.pictures, flop)
    for precision in PRECISIONS:
        yield Contender("bt", precision, partial(bt, precision), args.pictures, flop)


def error(vectors: Array, reference: Array) -> float:
    """How far the worst vector is from the reference: 1 - cosine."""
    return float(1 - (vectors * reference).sum(axis=1).min())


def parser() -> argparse.ArgumentParser:
    options = network_command_line(__doc__)
    options.add_argument("--pictures", type=int, default=BATCH_SIZE, help="in a batch (%(default)s, as in bt index)")
    return options


def main() -> None:
    args = parser().parse_args()
    compare_each_size(Path(__file__).stem, args, contenders, unit="pictures", error=error, limits=LIMITS)


if __name__ == "__main__":
    main()
