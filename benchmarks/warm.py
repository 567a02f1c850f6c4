"""The process that busy.py times: one build, with everything loaded, which works on command.

    python benchmarks/warm.py PHOTOS MODEL PRECISION INDEX SEARCHES

It begins as `bt` does, indexes PHOTOS and does all that it can once: a line of JSON says with which build, and what it
found. Then each line on stdin, one of the names in that JSON, is answered by the seconds that it took.
"""

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

TEXTS = ("two cats on a couch", "a dog in a car", "a giraffe playing the piano", "an owl at night", "three chicks")


def begin_as_bt() -> None:
    """Do the work of the command line before a command runs."""
    from bridgetower_cli import app

    sys.argv = ["bt", "--version"]
    with contextlib.redirect_stdout(io.StringIO()):
        app.run()


def main() -> None:
    photos, name, precision, index, searches = sys.argv[1:]
    begin_as_bt()
    import numpy as np

    import bridgetower
    from bridgetower.files.content import read
    from bridgetower.library import Library, Model
    from bridgetower.pictures.decode import decode
    from bridgetower.pictures.preprocess import preprocess

    texts = TEXTS[: int(searches)]
    model = Model(name, device="cpu", precision=precision)
    library = Library(index, model)
    library.index([photos])
    some = sorted(Path(photos).glob("*.jpg"))[:8]
    spec = model.encoder.preprocessing
    pixels = np.stack([preprocess(decode(read(path), path, min_side=spec.min_side), spec) for path in some])

    def recalls() -> dict[str, float]:
        hits = [hit for text in 4 * texts for hit in library.search(text, depth=0).hits]
        return {hit.path.name: hit.similarity for hit in hits if hit.similarity is not None}

    def verified_searches() -> dict[str, float]:
        hits = [hit for text in texts for hit in library.search(text).hits]
        return {hit.path.name: hit.match for hit in hits if hit.match is not None}

    def pictures_embedded() -> dict[str, float]:
        """Batch after batch, as when they are indexed."""
        vectors = [model.encoder.embed_images(pixels) for _ in texts]
        return {path.name: float(vector[0]) for path, vector in zip(some, vectors[-1], strict=True)}

    jobs: dict[str, Callable[[], dict[str, float]]] = {
        f"{4 * len(texts)} recalls": recalls,
        f"{len(texts)} verified searches": verified_searches,
        f"{len(texts) * len(some)} pictures embedded": pictures_embedded,
    }
    found = {name: job() for name, job in jobs.items()}
    print(json.dumps({"build": bridgetower.__file__, "found": found}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        jobs[line.strip()]()
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
