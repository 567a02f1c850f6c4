"""A disk that alters a file of an index, at random, hundreds of times: is any answer wrong, or older than need be?

    python benchmarks/damages.py --damages 300

The index is that of a run that was killed, so that it has a log, and a copy that lacks less than a twentieth. First any
of its files is damaged a little: a bit is flipped, a hundred bytes are overwritten, a sector is zeroed, or the end is
cut off. A search must then give the answer, or an error of one line; an older answer only where the last transaction of
the log, or its end, is missing, as after a power cut. Then as many blows hit the manifest or its copy, but not both:
pages are overwritten, the end is cut off, or all of it is gone. After each, `bt verify --repair` must bring back 95% of
the pictures without encoding, and a run over the folder the rest.
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
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        damages = Damages(Path(work), args.seed)
        for what, way in (("damages", damages.damage), ("blows", damages.strike)):
            done = Counter[str]()
            while done.total() < args.damages:
                try:
                    done[way()] += 1
                except AssertionError as error:
                    raise SystemExit(
                        f"{done.total()} of {args.damages} {what} were harmless or mended, not the next "
                        f"(seed {args.seed}): {error}"
                    ) from error
            print(f"{done.total()} of {args.damages} {what} were harmless or mended")
            print(", ".join(f"{kind} {number}" for kind, number in done.most_common()))
    print(f"the copy was restored {damages.restored} times; at least {damages.least:.1%} of the pictures came back")
    print(f"{time.monotonic() - began:.0f} s, seed {args.seed}")


if __name__ == "__main__":
    main()
