"""Check the captions of pictures in a CSV file: write it again with a column `match`, the least true captions first.

    python examples/caption_check.py captions.csv > checked.csv

The file has a line of names, among them `picture`, a path relative to the file, and `caption`. A match is the
probability that the caption is true of its picture.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

from bridgetower import DEFAULT_MODEL, BridgeTowerError, Model


def check(table: Path, model: Model) -> list[dict[str, str]]:
    """The rows of the table, the least true caption first."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    captions = defaultdict[Path, list[str]](list)
    for row in rows:
        captions[table.parent / row["picture"]].append(row["caption"])
    matches = {
        (picture, score.text): score.match
        for picture, texts in captions.items()  # each picture is read once, for all its captions
        for score in model.match([picture], list(dict.fromkeys(texts)))
    }
    for row in rows:
        row["match"] = f"{matches[table.parent / row['picture'], row['caption']]:.3f}"
    return sorted(rows, key=lambda row: float(row["match"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the captions of pictures in a CSV file.")
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a repository id of the Hub, a folder, or demo")
    arguments = parser.parse_args()
    try:
        rows = check(arguments.table, Model(arguments.model))
    except (BridgeTowerError, OSError) as error:
        parser.error(str(error))
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["picture", "caption", "match"])
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
