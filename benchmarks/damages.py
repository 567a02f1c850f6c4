"""A disk that alters a file of an index, at random, hundreds of times: is any answer wrong, or older than need be?

    python benchmarks/damages.py --damages 300

The index is that of a run that was killed, so that it has a log. In any of its files a bit is flipped, a hundred bytes
are overwritten, a sector is zeroed, or the end is cut off. A search must then give the answer, or an error of one line;
an older answer only where the last transaction of the log, or its end, is missing, as after a power cut.
`bt verify --repair` and a run over the folder must mend it, or say in one line why nothing can be saved.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.damages import Damages


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=300, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of what is damaged (a new one)")
    return parser


def main() -> None:
    args = parser().parse_args()
    began, done = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as work:
        damages = Damages(Path(work), args.seed)
        while done.total() < args.damages:
            try:
                done[damages.damage()] += 1
            except AssertionError as error:
                raise SystemExit(
                    f"{done.total()} of {args.damages} were harmless or told, not the next (seed {args.seed}): {error}"
                ) from error
    print(f"{done.total()} of {args.damages} damages were harmless or told")
    print(", ".join(f"{kind} {number}" for kind, number in done.most_common()))
    print(f"{time.monotonic() - began:.0f} s, seed {args.seed}")


if __name__ == "__main__":
    main()
