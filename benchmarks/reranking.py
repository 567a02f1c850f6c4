"""One text with 20 candidates -> matching logits, cold and from cached features, against `transformers`.

    python benchmarks/reranking.py --size base large

Cold is everything from preprocessed pixels to logits; cached is what a query costs when the vision tower has seen the
candidates before: the text tower once, then the cross-modal encoder on each.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import flops
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import DOCUMENTED, EXPERT, Array, Contender, Report, command_line, compare, network_options
from benchmarks.pictures import photo
from bridgetower.encoder import PRECISIONS, TorchEncoder, choose_runtime
from bridgetower.matching import every_pair
from bridgetower.preprocess import preprocess
from bridgetower.weights import load_model, resolve

TEXT = "two cats on a couch, and a dog in a car"
CANDIDATES = 20
LIMITS = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.3}  # of the difference from fp32, relative to the largest logit
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def contenders(size: str, args: argparse.Namespace) -> Iterator[Contender]:
    found = resolve(str(checkpoint(size, args.work)))
    pictures = [photo(seed) for seed in range(CANDIDATES)]
    tokens = len(found.tokenizer().encode(TEXT).ids)
    query = flops.text(found.config, tokens) + CANDIDATES * flops.pair(found.config, tokens)
    everything = query + CANDIDATES * (flops.image(found.config) + flops.projections(found.config))

    # `transformers` is imported by those who use it: memory.py runs them one by one.
    def documented() -> Callable[[], Array]:
        from benchmarks import peer

        return peer.match_documented(found.folder, args.device, pictures, TEXT)

    def expert(precision: str) -> Callable[[], Array]:
        from benchmarks import peer

        return peer.match_expert(found.folder, args.device, precision, pictures, TEXT)

    def cold(precision: str) -> Callable[[], Array]:
        encoder = TorchEncoder(found, choose_runtime(args.device, precision))
        pixels = np.stack([preprocess(picture, found.preprocessing) for picture in pictures])
        return partial(encoder.match, [TEXT], pixels, every_pair(1, CANDIDATES))

    @torch.inference_mode()
    def cached(precision: str) -> Callable[[], Array]:
        model = load_model(found, DTYPES[precision]).to(args.device)
        pixels = np.stack([preprocess(picture, found.preprocessing) for picture in pictures])
        features = model.encode_image(torch.from_numpy(pixels).to(args.device))

        @torch.inference_mode()
        def match() -> Array:
            ids, mask = (torch.from_numpy(array).to(args.device) for array in found.tokenizer().encode_batch([TEXT]))
            text = model.encode_text(ids, mask).select(torch.zeros(CANDIDATES, dtype=torch.int64, device=args.device))
            return np.asarray(model.itm(model.fuse(text, features, keep_text=1, keep_image=1)).float().cpu())

        return match

    yield Contender(DOCUMENTED, "fp32", documented, CANDIDATES, everything)
    for precision in ("fp32", "bf16"):
        yield Contender(EXPERT, precision, partial(expert, precision), CANDIDATES, everything)
    for precision in PRECISIONS:
        if precision != "auto":
            yield Contender("bt, cold", precision, partial(cold, precision), CANDIDATES, everything)
        if precision in DTYPES:
            yield Contender("bt, cached", precision, partial(cached, precision), CANDIDATES, query)


def error(logits: Array, reference: Array) -> float:
    """The largest difference, as a share of the largest logit."""
    return float(np.abs(logits - reference).max() / np.abs(reference).max())


def parser() -> argparse.ArgumentParser:
    return network_options(command_line(__doc__, sizes=["base", "large"], rounds=5))


def main() -> None:
    args = parser().parse_args()
    with Report(Path(__file__).stem, args) as report:
        for size in args.size:
            compare(
                report, list(contenders(size, args)), args, size=size, unit="candidates", error=error, limits=LIMITS
            )


if __name__ == "__main__":
    main()
