"""`kill -9` of `bt` while it writes an index, at random instants, one after the other: how many does the index survive?

    python benchmarks/kills.py --kills 300

Killed are `bt index` (also while it publishes a vector file), `bt prune`, `bt forget`, `bt verify --repair`, and the
bringing forward of an older format. After each kill `bt verify` must find nothing, and all that was committed before
must be there; at the end, one run that nobody disturbs must give the index that runs without kills give: the same
files, vectors to the bit, and similarities. The model sees nothing but colour: all else is real.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.ordeal import Ordeal
from tests.faults.victims import Victims


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="processes to kill (%(default)s)")
    parser.add_argument("--many", type=int, default=50_000, help="more images than this are searched by lists")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="of the instants (a new one)")
    return parser


def main() -> None:
    args = parser().parse_args()
    began, survived, ended = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as work, Victims(many=args.many) as victims:
        ordeal = Ordeal(Path(work), victims, args.seed)
        while survived.total() < args.kills:
            way = ordeal.choose()
            try:
                if way():
                    survived[way.__name__] += 1
                else:
                    ended += 1
            except AssertionError as error:
                raise SystemExit(
                    f"survived {survived.total()}/{args.kills}, but not the next, of {way.__name__} "
                    f"(--seed {args.seed}): {error}"
                ) from error
        ordeal.end()
    print(f"survived {survived.total()}/{args.kills} kills, the index is that of runs without any")
    print(", ".join(f"{name} {number}" for name, number in survived.most_common()), f"({ended} ended before the kill)")
    print(f"{time.monotonic() - began:.0f} s, seed {args.seed}")


if __name__ == "__main__":
    main()
