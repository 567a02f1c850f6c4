"""The fingerprint of an index, and whether vectors with another fingerprint can be compared with its vectors."""

from contextlib import closing, suppress
from pathlib import Path

from bridgetower.errors import NoIndexError, StoreError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.directory import MANIFEST
from bridgetower.records import FOREIGN, INT8, Fingerprint


def made_by(directory: Path) -> Fingerprint | None:
    """Return the fingerprint of the index in `directory`; None if there is no index, or it has no images yet.

    Raises StoreError if the index cannot be read.
    """
    with suppress(NoIndexError), closing(Catalog.read(directory.absolute() / MANIFEST)) as catalog:
        return catalog.fingerprint() if catalog.has_images() else None
    return None


def begun_by(directory: Path) -> Fingerprint | None:
    """Return the fingerprint of the index in `directory`, with or without images; None if there is no index, or its
    vectors would be foreign. Raises StoreError if the index cannot be read."""
    with suppress(NoIndexError), closing(Catalog.read(directory.absolute() / MANIFEST)) as catalog:
        found = catalog.fingerprint()
        return found if found.precision_family != FOREIGN else None
    return None


def require_ours(directory: Path, made_by: Fingerprint) -> None:
    """Raise StoreError if the vectors of an index are foreign: no model of `bt` makes vectors comparable with them."""
    if made_by.precision_family == FOREIGN:
        raise StoreError(
            f"{directory}: its vectors are foreign ({made_by.model}), bt makes none that could be compared with them: "
            "search it with --query-vector FILE, add to it with `bt import --vectors FILE`, or build another index "
            "with `bt index --index NEW PHOTOS`"
        )


def require_same(directory: Path, stored: Fingerprint, given: Fingerprint, *, imported: bool = False) -> None:
    """Raise StoreError, with the differing fields and a way out, unless these vectors can be compared."""
    differing = stored.differences(given)
    if not differing:
        return
    if not imported:
        require_ours(directory, stored)
    if imported:
        advice = "import into another place"
    elif [*differing] == ["preprocessing"]:
        advice = f"use preprocessing {stored.preprocessing}, or build another index"
    elif [*differing] == ["precision_family"]:
        precision = INT8 if stored.precision_family == INT8 else "auto"
        advice = f"use precision {precision}, or build another index"
    elif stored.model != given.model:
        advice = "use that model, or build another index"
    else:
        advice = "this has changed since; build a new index in another place"
    others = "those that it makes now" if stored.model == given.model else f"those of {given.model}"
    changes = "; ".join(differing.values())
    raise StoreError(
        f"{directory}: made by model {stored.model}, whose vectors cannot be compared with {others} ({changes}): "
        + (f"{advice} with --index NEW" if imported else f"{advice} with `bt index --index NEW PHOTOS`")
    )
