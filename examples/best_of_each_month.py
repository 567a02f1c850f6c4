"""Print, for each month of a year, the picture of which a text is most probably true.

    python examples/best_of_each_month.py photos.index "a dog in the snow" 2024

A month without such a picture is left out.
"""

import argparse
from collections.abc import Iterator

from bridgetower import BridgeTowerError, Hit, Library


def best_of_each_month(library: Library, text: str, year: int, min_match: float = 0.5) -> Iterator[tuple[str, Hit]]:
    """Yield the months, such as "2024-05", each with its best picture. Undated pictures have that of the file."""
    for month in range(1, 13):
        name = f"{year}-{month:02}"
        for hit in library.search(text, taken=name, top=1, min_match=min_match):
            yield name, hit


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the best picture of each month of a year.")
    parser.add_argument("index", help="the folder of the index; bt status names it")
    parser.add_argument("text")
    parser.add_argument("year", type=int)
    parser.add_argument("--min-match", type=float, default=0.5, help="leave out less probable pictures (0.5)")
    arguments = parser.parse_args()
    try:
        with Library(arguments.index) as library:
            for month, hit in best_of_each_month(library, arguments.text, arguments.year, arguments.min_match):
                print(f"{month}  {hit.match:.3f}  {hit.path}")
    except BridgeTowerError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
