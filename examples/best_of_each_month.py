"""Print, for each month of a year, the picture of which a text is most probably true.

    python examples/best_of_each_month.py photos.index "two cats on a couch" 2024

A month without such a picture is left out; where no month has one, the exit code is 1.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import date

from bridgetower import BridgeTowerError, Found, Library


def best_of_each_month(library: Library, text: str, year: int, min_match: float) -> Iterator[tuple[str, Found]]:
    """Yield the months, such as "2024-05", each with at most one hit. Undated pictures have the date of the file."""
    for month in range(1, 13):
        name = f"{year}-{month:02}"
        yield name, library.search(text, taken=name, top=1, min_match=min_match)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the best picture of each month of a year.")
    parser.add_argument("index", help="the folder of the index; bt status names it")
    parser.add_argument("text")
    parser.add_argument("year", type=int, nargs="?", default=date.today().year, help="by default this one")
    parser.add_argument("--min-match", type=float, default=0.5, help="leave out less probable pictures (0.5)")
    arguments = parser.parse_args()
    is_any, best = False, list[float]()
    try:
        with Library(arguments.index) as library:
            for month, found in best_of_each_month(library, arguments.text, arguments.year, arguments.min_match):
                best += [] if found.best_match is None else [found.best_match]
                for hit in found:
                    is_any = True
                    print(f"{month}  {hit.match:.3f}  {hit.path}")
    except BridgeTowerError as error:
        parser.exit(error.exit_code, f"error: {error}\n")
    except KeyboardInterrupt:
        sys.exit(130)
    if not is_any:
        reason = f"the best picture has {max(best):.3f}" if best else "the index has no picture of that year"
        parser.exit(1, f"no match in {arguments.year}: {reason}\n")


if __name__ == "__main__":
    main()
