"""Image-text retrieval with BridgeTower: index pictures, search them by text, fill in words.

These names are the stable interface; each is imported when it is first used, so that `import bridgetower` is free.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bridgetower.errors import BridgeTowerError, InputError, ModelError, PictureError, StoreError, UsageError
    from bridgetower.fill import Filled
    from bridgetower.indexing import IndexReport, Progress
    from bridgetower.library import Library, Model
    from bridgetower.matching import Results
    from bridgetower.records import Filter, Head, Hit, PairScore, Skipped, Word
    from bridgetower.search import Found
    from bridgetower.store import Summary
    from bridgetower.upkeep import Forgotten, Pruned
    from bridgetower.verify import Finding, Repaired

_HOMES = {
    "library": ("Library", "Model"),
    "records": ("Filter", "Head", "Hit", "PairScore", "Skipped", "Word"),
    "matching": ("Results",),
    "fill": ("Filled",),
    "indexing": ("IndexReport", "Progress"),
    "search": ("Found",),
    "store": ("Summary",),
    "upkeep": ("Forgotten", "Pruned"),
    "verify": ("Finding", "Repaired"),
    "errors": ("BridgeTowerError", "InputError", "ModelError", "PictureError", "StoreError", "UsageError"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BridgeTowerError",
    "Filled",
    "Filter",
    "Finding",
    "Forgotten",
    "Found",
    "Head",
    "Hit",
    "IndexReport",
    "InputError",
    "Library",
    "Model",
    "ModelError",
    "PairScore",
    "PictureError",
    "Progress",
    "Pruned",
    "Repaired",
    "Results",
    "Skipped",
    "StoreError",
    "Summary",
    "UsageError",
    "Word",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
