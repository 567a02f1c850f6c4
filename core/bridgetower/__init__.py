"""Image-text retrieval with BridgeTower: index pictures, search them by text, fill in words.

These names are the stable interface; each is imported when it is first used, so that `import bridgetower` is free.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bridgetower.backup import Restored
    from bridgetower.errors import (
        BridgeTowerError,
        DamagedFileError,
        DamagedIndexError,
        InputError,
        LockedError,
        ModelError,
        NoIndexError,
        OutputError,
        PictureError,
        ProcessError,
        ResourceError,
        StoreError,
        UnknownPlaceError,
        UsageError,
    )
    from bridgetower.evaluation import Captioned, Evaluation
    from bridgetower.exporting import Exported
    from bridgetower.fill import Filled
    from bridgetower.importing import ImportReport
    from bridgetower.indexing import IndexReport, Progress
    from bridgetower.library import Library
    from bridgetower.manifest import Tuning
    from bridgetower.matching import Results
    from bridgetower.models import DEFAULT_MODEL, Model, available_models, convert_model, pull_model
    from bridgetower.preprocess import Preprocessing
    from bridgetower.protocol import Embedded, ImageEngine, Judge, Pictures, Reading, RecallEncoder, Refused, Texts
    from bridgetower.recall_store import RecallStore, RecallView
    from bridgetower.records import Filter, Fingerprint, Head, Hit, PairScore, Skipped, Word
    from bridgetower.roots import nothing_in
    from bridgetower.runtime import Runtime, choose_runtime
    from bridgetower.search import Found, SearchRequest
    from bridgetower.store import Root, Summary
    from bridgetower.upkeep import ForgetReport, Forgotten, Pruned
    from bridgetower.verify import Finding, Repaired
    from bridgetower.weights import Checkpoint, LocalModel

_HOMES = {
    "backup": ("Restored",),
    "errors": (
        "BridgeTowerError",
        "DamagedFileError",
        "DamagedIndexError",
        "InputError",
        "LockedError",
        "ModelError",
        "NoIndexError",
        "OutputError",
        "PictureError",
        "ProcessError",
        "ResourceError",
        "StoreError",
        "UnknownPlaceError",
        "UsageError",
    ),
    "evaluation": (
        "Captioned",
        "Evaluation",
    ),
    "exporting": ("Exported",),
    "fill": ("Filled",),
    "importing": ("ImportReport",),
    "indexing": (
        "IndexReport",
        "Progress",
    ),
    "library": ("Library",),
    "manifest": ("Tuning",),
    "matching": ("Results",),
    "models": (
        "DEFAULT_MODEL",
        "Model",
        "available_models",
        "convert_model",
        "pull_model",
    ),
    "preprocess": ("Preprocessing",),
    "protocol": (
        "Embedded",
        "ImageEngine",
        "Judge",
        "Pictures",
        "Reading",
        "RecallEncoder",
        "Refused",
        "Texts",
    ),
    "recall_store": (
        "RecallStore",
        "RecallView",
    ),
    "records": (
        "Filter",
        "Fingerprint",
        "Head",
        "Hit",
        "PairScore",
        "Skipped",
        "Word",
    ),
    "roots": ("nothing_in",),
    "runtime": (
        "Runtime",
        "choose_runtime",
    ),
    "search": (
        "Found",
        "SearchRequest",
    ),
    "store": (
        "Root",
        "Summary",
    ),
    "upkeep": (
        "Forgotten",
        "ForgetReport",
        "Pruned",
    ),
    "verify": (
        "Finding",
        "Repaired",
    ),
    "weights": (
        "Checkpoint",
        "LocalModel",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DEFAULT_MODEL",
    "BridgeTowerError",
    "Captioned",
    "Checkpoint",
    "DamagedFileError",
    "DamagedIndexError",
    "Embedded",
    "Evaluation",
    "Exported",
    "Filled",
    "Filter",
    "Finding",
    "Fingerprint",
    "ForgetReport",
    "Forgotten",
    "Found",
    "Head",
    "Hit",
    "ImageEngine",
    "ImportReport",
    "IndexReport",
    "InputError",
    "Judge",
    "Library",
    "LocalModel",
    "LockedError",
    "Model",
    "ModelError",
    "NoIndexError",
    "OutputError",
    "PairScore",
    "PictureError",
    "Pictures",
    "Preprocessing",
    "ProcessError",
    "Progress",
    "Pruned",
    "Reading",
    "RecallEncoder",
    "RecallStore",
    "RecallView",
    "Refused",
    "Repaired",
    "ResourceError",
    "Restored",
    "Results",
    "Root",
    "Runtime",
    "SearchRequest",
    "Skipped",
    "StoreError",
    "Summary",
    "Texts",
    "Tuning",
    "UnknownPlaceError",
    "UsageError",
    "Word",
    "available_models",
    "choose_runtime",
    "convert_model",
    "nothing_in",
    "pull_model",
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
