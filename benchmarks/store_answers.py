"""Whether an index answers the same with every store: the pictures that it shows, and their similarities.

    python benchmarks/store_answers.py --rows 100000 --stores faiss postgres milvus

An index of vectors in two clouds (benchmarks/clouds.py) recalls from one store after the other, moved by `bt index
--store`. With each, texts that recall was not tuned with ask for the top 20. `same top` is the share of the texts
whose 20 pictures are those of `--exact`, in its order; `same scores` the share of the pictures that both show whose
similarity is the same number, to the last bit. Servers are started in temporary folders.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.clouds import Clouds
from benchmarks.harness import WORK, Report
from benchmarks.scale import DIM, build
from bridgetower import Library
from bridgetower.index.reader import IndexReader, Neighbour
from bridgetower.index.stores.named import NamedStore

TOP = 20


@contextmanager
def faiss() -> Iterator[tuple[str, str | None]]:
    yield "faiss", None


@contextmanager
def postgres() -> Iterator[tuple[str, str | None]]:
    from tests.cluster.postgres_server import PASSWORD, postgres_server

    with postgres_server("shared_buffers = 2GB\nmax_wal_size = 8GB") as server:
        yield str(server.tcp), PASSWORD


@contextmanager
def milvus() -> Iterator[tuple[str, str | None]]:
    from tests.cluster.milvus_server import PASSWORD, milvus_server

    with milvus_server() as server:
        yield str(server.address), PASSWORD


STORES: dict[str, Callable[[], AbstractContextManager[tuple[str, str | None]]]] = {
    "faiss": faiss,
    "postgres": postgres,
    "milvus": milvus,
}


def compare(
    index: Path, password: str | None, queries: NDArray[np.float32], exact: list[list[Neighbour]]
) -> dict[str, float]:
    """Return what the present store finds, beside the exact answers."""
    same, scores, shared, recalled, seconds, texts = 0, 0, 0, 0, [], len(queries)
    with IndexReader.open(index, NamedStore(password)) as reader:
        for query, wanted in zip(queries, exact, strict=True):
            begin = time.perf_counter()
            [found] = reader.recall(query[None], TOP)
            seconds.append(time.perf_counter() - begin)
            same += [one.image for one in found] == [one.image for one in wanted]
            exactly = dict(wanted)
            both = [one for one in found if one.image in exactly]
            shared += len(both)
            scores += sum(one.similarity == exactly[one.image] for one in both)
            recalled += len(both)
        assert reader.damage is None
        tuning = reader.catalog.tuning()
    return {
        "same_top": same / texts,
        "same_scores": scores / shared,
        "recall_20": recalled / (TOP * texts),
        "recall_100": 1.0 if tuning is None else tuning.recall,
        "p50_ms": 1000 * float(np.median(seconds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="pictures of the index (%(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="texts that search (%(default)s)")
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=STORES, help="(all)")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the index (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also append rows to FILE, one JSON object a line")
    args = parser.parse_args()
    index = args.work / f"store-answers-{args.rows}"
    shutil.rmtree(index, ignore_errors=True)
    with Report(Path(__file__).stem, args) as report:
        build(args.rows, index, in_bulk=True)
        queries = Clouds(DIM).texts(0, args.rounds)
        with IndexReader.open(index) as reader:
            exact = reader.recall(queries, TOP, exact=True)
        for name in args.stores:
            with STORES[name]() as (url, password):
                begin = time.perf_counter()
                with Library(index, store_password=password) as library:
                    library.move_store(url)
                moving = time.perf_counter() - begin
                report.add(rows=args.rows, store=name, **compare(index, password, queries, exact), moving_s=moving)
                if name != "faiss":
                    with Library(index, store_password=password) as library:
                        library.move_store("faiss")
    shutil.rmtree(index)


if __name__ == "__main__":
    main()
