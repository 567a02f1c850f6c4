"""One step of training, with AdamW: its seconds and its peak memory, against the same step with `transformers`.

    python benchmarks/training.py --size base                                # 16 pairs, towers frozen, fp32
    python benchmarks/training.py --size large --freeze none --gradient-checkpointing --micro-batch 4 --of bt

Hard negatives by ITC similarity, and the three losses: four pairs of text and picture for each picture. The peer runs
its backbone on all of them, as its classes do, and lets PyTorch go backward from the sum of the losses. Each contender
runs in a process of its own, in turns; its first step is without dropout, its losses are compared, and it is not timed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from benchmarks import peer, processes
from benchmarks.checkpoints import checkpoint
from benchmarks.harness import Report, Times, command_line
from benchmarks.pictures import photo
from bridgetower.checkpoints.checkpoint import Checkpoint
from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.pictures.preprocess import preprocess
from bridgetower.training.batch import Batch
from bridgetower.training.objective import backward
from bridgetower.training.optimiser import freeze
from bridgetower.training.recipe import Freeze, Recipe

BT, PEER = "bt", "transformers"
SEED = 0
LIMITS = {"fp32": 1e-3, "bf16": 0.1}  # of the largest difference of a loss from that of the peer, relative
CAPTIONS = (
    "two cats on a couch, and a dog in a car", "a man in a red jacket walks his dog along the beach",
    "three umbrellas left of a small white house", "a bowl of soup with bread on a wooden table",
    "children play football in the rain", "an old train crosses a bridge over the river at dusk",
)  # fmt: skip

Step = Callable[[int, bool], list[float]]  # of a number, with or without dropout -> the losses ITC, ITM, MLM


def batch_of(found: Checkpoint, size: int) -> Batch:
    """Pairs of drawn pictures and captions, no two alike."""
    pixels = np.stack([preprocess(photo(seed), found.preprocessing) for seed in range(size)])
    texts = [f"{CAPTIONS[i % len(CAPTIONS)]}, {i}" for i in range(size)]
    ids, mask = (torch.from_numpy(array) for array in found.tokenizer().encode_batch(texts))
    return Batch(torch.from_numpy(pixels), ids, mask, torch.eye(size, dtype=torch.bool))


def ours(found: Checkpoint, batch: Batch, recipe: Recipe, device: torch.device) -> Step:
    model = load_model(found).to(device)
    freeze(model, recipe)
    optimiser = _optimiser(model, recipe)
    mask_id, maskable = found.tokenizer().mask_id, torch.ones(found.config.text.vocab_size)

    def step(number: int, dropout: bool) -> list[float]:
        model.train(dropout)
        losses = backward(model, batch, recipe, mask_id=mask_id, maskable=maskable, seed=SEED, step=number)
        _update(model, optimiser, recipe)
        return [value for value in (losses.itc, losses.itm, losses.mlm) if value is not None]

    return step


def theirs(found: Checkpoint, batch: Batch, recipe: Recipe, device: torch.device) -> Step:
    network = peer.Trained(found.folder, device, recipe, found.tokenizer().mask_id)
    optimiser = _optimiser(network, recipe)

    def step(number: int, dropout: bool) -> list[float]:
        network.train(dropout)
        losses = network.losses(batch, SEED, number)
        torch.stack(losses).sum().backward()
        _update(network, optimiser, recipe)
        return [loss.item() for loss in losses]

    return step


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=1e-7, betas=recipe.betas, eps=recipe.eps)


def _update(model: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def worker(args: argparse.Namespace) -> dict[str, Any]:
    """Run one contender: its losses in a step without dropout, then the seconds of a step with dropout."""
    [size] = args.size
    found, device = resolve(str(checkpoint(size, args.work))), torch.device(args.device)
    recipe = Recipe(1, freeze=args.freeze, precision=args.precision)
    if args.only == BT:
        recipe = replace(recipe, micro_batch=args.micro_batch, gradient_checkpointing=args.gradient_checkpointing)
    step = {BT: ours, PEER: theirs}[args.only](found, batch_of(found, args.batch).to(device), recipe, device)
    losses = step(0, False)
    begin, busy = time.perf_counter(), time.process_time()
    step(1, True)
    measured = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - busy}
    on_gpu = {"peak": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}
    return {"losses": losses, **measured, **on_gpu}


def measure(contender: str, args: argparse.Namespace, size: str) -> dict[str, Any]:
    """Run a contender in a process of its own: what `worker` returns, and `peak`, the most memory in bytes."""
    options = ["--size", size, "--work", str(args.work), "--only", contender, "--batch", str(args.batch)]
    options += ["--freeze", args.freeze, "--precision", args.precision, "--device", args.device]
    options += ["--micro-batch", str(args.micro_batch)] if args.micro_batch else []
    options += ["--gradient-checkpointing"] if args.gradient_checkpointing else []
    printed, peak = processes.output_and_peak([sys.executable, __file__, *options])
    return {"peak": peak, **json.loads(printed)}


def add_rows(
    report: Report, runs: Mapping[str, Sequence[Mapping[str, Any]]], args: argparse.Namespace, size: str
) -> None:
    """Report the runs of each contender beside those of the first. SystemExit where their losses differ."""

    def median(contender: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[contender])

    first = next(iter(runs))
    right = runs[first][0]["losses"]
    for contender, measured in runs.items():
        error = max(abs(a / b - 1) for run in measured for a, b in zip(run["losses"], right, strict=True))
        if not error <= LIMITS[args.precision]:  # NaN is wrong, too
            raise SystemExit(f"{size}: {contender} is wrong: its losses differ by {error:.1e}")
        report.add(
            Times(tuple(run["seconds"] for run in measured)),
            size=size,
            contender=contender,
            error=error,
            pairs_per_s=args.batch / median(contender, "seconds"),
            x_seconds=median(contender, "seconds") / median(first, "seconds"),
            processor_s=median(contender, "processor"),
            x_processor=median(contender, "processor") / median(first, "processor"),
            peak_mb=median(contender, "peak") / 1e6,
            x_peak=median(contender, "peak") / median(first, "peak"),
        )


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["base"], rounds=3)
    options.add_argument("--batch", type=int, default=16, help="pictures, each with a caption (%(default)s)")
    options.add_argument("--freeze", default="towers", choices=get_args(Freeze), help="(%(default)s)")
    options.add_argument("--precision", default="fp32", choices=tuple(LIMITS), help="of both sides (%(default)s)")
    options.add_argument("--micro-batch", type=int, help="pictures that bt computes at once (all)")
    options.add_argument("--gradient-checkpointing", action="store_true", help="of bt")
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="for both sides (%(default)s)")
    options.add_argument("--of", nargs="+", choices=(PEER, BT), default=(PEER, BT), help="contenders (both)")
    options.add_argument("--only", choices=(PEER, BT), help="run this one here, and print its figures as JSON")
    return options


def main() -> None:
    args = parser().parse_args()
    if args.only is not None:
        sys.stdout.write(json.dumps(worker(args)) + "\n")
        return
    with Report(Path(__file__).stem, args) as report:
        for size in args.size:
            checkpoint(size, args.work)  # before the first process wants it
            runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in args.of}
            for _ in range(args.rounds):
                for contender, measured in runs.items():
                    measured.append(measure(contender, args, size))
            add_rows(report, runs, args, size)


if __name__ == "__main__":
    main()
