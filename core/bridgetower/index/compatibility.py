"""The model that an index is bound to: whether its vectors can be compared with those of another one."""

from contextlib import closing, suppress
from pathlib import Path

from bridgetower.errors import NoIndexError, StoreError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.directory import MANIFEST
from bridgetower.records import FOREIGN, INT8, Fingerprint

# What makes vectors comparable, and what to call it. The names of a model are not part of it: the same weights in a
# copied folder, or in a newer release of the package, are the same model.
_COMPARED = {
    "weights_sha256": "weights",
    "config_sha256": "configuration",
    "preprocessing": "preprocessing",
    "preprocessing_version": "preprocessing version",
    "precision_family": "precision family",
    "dim": "vector length",
}


def made_by(directory: Path) -> Fingerprint | None:
    """What the index in `directory` is bound to; None where it has no images yet, or is not there.

    Raises StoreError where it cannot be read.
    """
    with suppress(NoIndexError), closing(Catalog.read(directory.absolute() / MANIFEST)) as catalog:
        return catalog.fingerprint() if catalog.has_images() else None
    return None


def require_ours(directory: Path, made_by: Fingerprint) -> None:
    """Raise StoreError where the vectors of an index are foreign: no text or picture of ours becomes one of those."""
    if made_by.precision_family == FOREIGN:
        raise StoreError(
            f"{directory}: its vectors are foreign ({made_by.model}), bt makes none that could be compared with them: "
            "search it with --query-vector FILE, add to it with `bt import --vectors FILE`, or build another index "
            "with `bt index --index NEW PHOTOS`"
        )


def differences(stored: Fingerprint, given: Fingerprint) -> list[str]:
    """The fields because of which vectors with these fingerprints cannot be compared; none where they can."""
    return [field for field in _COMPARED if getattr(stored, field) != getattr(given, field)]


def require_same(directory: Path, stored: Fingerprint, given: Fingerprint, *, imported: bool = False) -> None:
    differing = differences(stored, given)
    if not differing:
        return
    if not imported:
        require_ours(directory, stored)
    if imported:
        way_out = "import into another place"
    elif differing == ["preprocessing"]:
        way_out = f"use preprocessing {stored.preprocessing}, or build another index"
    elif differing == ["precision_family"]:
        precision = INT8 if stored.precision_family == INT8 else "auto"
        way_out = f"use precision {precision}, or build another index"
    elif stored.model != given.model:
        way_out = "use that model, or build another index"
    else:
        way_out = "this has changed since; build a new index in another place"
    others = "those that it makes now" if stored.model == given.model else f"those of {given.model}"
    said = "; ".join(
        f"{_COMPARED[field]} {getattr(stored, field)!s:.16}, not {getattr(given, field)!s:.16}" for field in differing
    )
    raise StoreError(
        f"{directory}: made by model {stored.model}, whose vectors cannot be compared with {others} ({said}): "
        + (f"{way_out} with --index NEW" if imported else f"{way_out} with `bt index --index NEW PHOTOS`")
    )
