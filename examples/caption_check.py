"""Check the captions of pictures: print them as CSV with a column `match`, the least true captions first.

    python examples/caption_check.py captions.csv > checked.csv

The file is one that `bt audit` takes: a table with the columns `image`, a path relative to the file, and `caption`, or
JSON lines. A match is the probability that the caption is true of its picture.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator

from bridgetower import DEFAULT_MODEL, BridgeTowerError, Captioned, MissingHeadError, Model, read_captions

COLUMNS = ("image", "place", "caption", "match")  # the first ones of `bt audit --csv`


def check(captioned: Iterable[Captioned], model: Model) -> Iterator[tuple[str, str, str, float]]:
    """Yield a row for each caption. Each picture is read once, for all its captions."""
    for item in captioned:
        matches = {score.text: score.match for score in model.match([item.image], list(dict.fromkeys(item.captions)))}
        for place, caption in zip(item.places, item.captions, strict=True):
            match = matches[caption]
            if match is None:
                raise MissingHeadError("the model cannot match: take one with an ITM head")
            yield str(item.image), place, caption, match


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the captions of pictures in a file.")
    parser.add_argument("captions", help="CSV or TSV with the columns image and caption, or JSON lines")
    parser.add_argument("--images", help="the folder of the pictures; by default that of the file")
    parser.add_argument("--skip-missing", action="store_true", help="leave out pictures that are not there")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a repository id of the Hub, a folder, or demo")
    arguments = parser.parse_args()
    on_missing = (lambda one: print(f"{one.path}: {one.reason}", file=sys.stderr)) if arguments.skip_missing else None
    try:
        captioned = read_captions(arguments.captions, images=arguments.images, on_missing=on_missing)
        rows = sorted(check(captioned, Model(arguments.model)), key=lambda row: row[-1])
    except BridgeTowerError as error:
        parser.exit(error.exit_code, f"error: {error}\n")
    except KeyboardInterrupt:
        sys.exit(130)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((*row, f"{match:.3f}") for *row, match in rows)


if __name__ == "__main__":
    main()
