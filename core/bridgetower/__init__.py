"""Image-text retrieval with BridgeTower: index pictures, search them by text, fill in words.

These names are the stable interface. Each is imported on first use, so that `import bridgetower` is fast.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # `X as X` makes a name public to type checkers
    from bridgetower.checkpoints.checkpoint import Checkpoint as Checkpoint
    from bridgetower.checkpoints.find import LocalModel as LocalModel
    from bridgetower.encoders.protocol import Embedded as Embedded
    from bridgetower.encoders.protocol import ImageEngine as ImageEngine
    from bridgetower.encoders.protocol import Judge as Judge
    from bridgetower.encoders.protocol import MaskedPrediction as MaskedPrediction
    from bridgetower.encoders.protocol import Pictures as Pictures
    from bridgetower.encoders.protocol import RecallEncoder as RecallEncoder
    from bridgetower.encoders.protocol import Texts as Texts
    from bridgetower.encoders.runtime import Runtime as Runtime
    from bridgetower.encoders.runtime import choose_runtime as choose_runtime
    from bridgetower.errors import BridgeTowerError as BridgeTowerError
    from bridgetower.errors import DamagedFileError as DamagedFileError
    from bridgetower.errors import DamagedIndexError as DamagedIndexError
    from bridgetower.errors import DamagedLogError as DamagedLogError
    from bridgetower.errors import DivergedError as DivergedError
    from bridgetower.errors import InputError as InputError
    from bridgetower.errors import LockedError as LockedError
    from bridgetower.errors import MissingExtraError as MissingExtraError
    from bridgetower.errors import MissingHeadError as MissingHeadError
    from bridgetower.errors import ModelError as ModelError
    from bridgetower.errors import NoIndexError as NoIndexError
    from bridgetower.errors import OutputError as OutputError
    from bridgetower.errors import PictureError as PictureError
    from bridgetower.errors import PixelLimitError as PixelLimitError
    from bridgetower.errors import ProcessError as ProcessError
    from bridgetower.errors import RefusedPasswordError as RefusedPasswordError
    from bridgetower.errors import ResourceError as ResourceError
    from bridgetower.errors import StoreError as StoreError
    from bridgetower.errors import UnknownPlaceError as UnknownPlaceError
    from bridgetower.errors import UnreachableStoreError as UnreachableStoreError
    from bridgetower.errors import UsageError as UsageError
    from bridgetower.files.captions.captioned import Captioned as Captioned
    from bridgetower.files.captions.read import read_captions as read_captions
    from bridgetower.index.catalog.rows import Folder as Folder
    from bridgetower.index.catalog.rows import StoreRow as StoreRow
    from bridgetower.index.catalog.rows import Tuning as Tuning
    from bridgetower.index.check import Finding as Finding
    from bridgetower.index.check import Repaired as Repaired
    from bridgetower.index.maintenance import ForgetReport as ForgetReport
    from bridgetower.index.maintenance import Forgotten as Forgotten
    from bridgetower.index.maintenance import Pruned as Pruned
    from bridgetower.index.reader import Kept as Kept
    from bridgetower.index.reader import Root as Root
    from bridgetower.index.reader import Summary as Summary
    from bridgetower.index.recovery.backup import Restored as Restored
    from bridgetower.index.roots import nothing_in as nothing_in
    from bridgetower.index.vectors.protocol import RecallStore as RecallStore
    from bridgetower.index.vectors.protocol import RecallView as RecallView
    from bridgetower.installation import how_to_install as how_to_install
    from bridgetower.library import Library as Library
    from bridgetower.models.model import Model as Model
    from bridgetower.models.model import available_models as available_models
    from bridgetower.models.model import convert_model as convert_model
    from bridgetower.models.model import pull_model as pull_model
    from bridgetower.models.on_disk import ModelInfo as ModelInfo
    from bridgetower.models.on_disk import RemovedModel as RemovedModel
    from bridgetower.models.on_disk import SizedFile as SizedFile
    from bridgetower.models.on_disk import Tower as Tower
    from bridgetower.models.on_disk import model_info as model_info
    from bridgetower.models.on_disk import model_names as model_names
    from bridgetower.models.on_disk import remove_model as remove_model
    from bridgetower.pictures.decode_pool import GuardedDecoder as GuardedDecoder
    from bridgetower.pictures.decode_pool import GuardedPicture as GuardedPicture
    from bridgetower.pictures.preprocess import Preprocessing as Preprocessing
    from bridgetower.records import DEFAULT_MODEL as DEFAULT_MODEL
    from bridgetower.records import EngineChoice as EngineChoice
    from bridgetower.records import FileContent as FileContent
    from bridgetower.records import Fingerprint as Fingerprint
    from bridgetower.records import Head as Head
    from bridgetower.records import Hit as Hit
    from bridgetower.records import LeftOut as LeftOut
    from bridgetower.records import PairScore as PairScore
    from bridgetower.records import Refused as Refused
    from bridgetower.records import Skipped as Skipped
    from bridgetower.records import Stamp as Stamp
    from bridgetower.records import Word as Word
    from bridgetower.records import WordCount as WordCount
    from bridgetower.retrieval.curation.audit import Audit as Audit
    from bridgetower.retrieval.curation.audit import Audited as Audited
    from bridgetower.retrieval.duplicates.result import Duplicate as Duplicate
    from bridgetower.retrieval.duplicates.result import DuplicateGroup as DuplicateGroup
    from bridgetower.retrieval.duplicates.result import Duplicates as Duplicates
    from bridgetower.retrieval.duplicates.result import Likeness as Likeness
    from bridgetower.retrieval.evaluation import Evaluation as Evaluation
    from bridgetower.retrieval.indexing import IndexReport as IndexReport
    from bridgetower.retrieval.indexing import Progress as Progress
    from bridgetower.retrieval.results import Filled as Filled
    from bridgetower.retrieval.results import Found as Found
    from bridgetower.retrieval.results import Results as Results
    from bridgetower.retrieval.search.request import SearchRequest as SearchRequest
    from bridgetower.serving.thumbnails.of_files import thumbnails as thumbnails
    from bridgetower.training.data.report import Amount as Amount
    from bridgetower.training.data.report import DataReport as DataReport
    from bridgetower.training.run.prepare import Prepared as Prepared
    from bridgetower.training.run.prepare import prepare_training as prepare_training
    from bridgetower.training.run.settings import TrainSettings as TrainSettings
    from bridgetower.training.run.train import TrainResult as TrainResult
    from bridgetower.training.run.train import TrainStart as TrainStart
    from bridgetower.training.run.train import train_model as train_model
    from bridgetower.training.trainer import StepReport as StepReport
    from bridgetower.training.validation import Validation as Validation
    from bridgetower.transfer.export import Exported as Exported
    from bridgetower.transfer.import_index import ImportReport as ImportReport
    from bridgetower.transfer.placing import Placed as Placed
    from bridgetower.transfer.placing import place_files as place_files

_HOMES = {
    "checkpoints.checkpoint": "Checkpoint",
    "checkpoints.find": "LocalModel",
    "encoders.protocol": "Embedded ImageEngine Judge MaskedPrediction Pictures RecallEncoder Texts",
    "encoders.runtime": "Runtime choose_runtime",
    "errors": "BridgeTowerError DamagedFileError DamagedIndexError DamagedLogError DivergedError InputError "
    "LockedError MissingExtraError MissingHeadError ModelError NoIndexError OutputError PictureError PixelLimitError "
    "ProcessError RefusedPasswordError ResourceError StoreError UnknownPlaceError UnreachableStoreError UsageError",
    "files.captions.captioned": "Captioned",
    "files.captions.read": "read_captions",
    "index.catalog.rows": "Folder StoreRow Tuning",
    "index.check": "Finding Repaired",
    "index.maintenance": "ForgetReport Forgotten Pruned",
    "index.reader": "Kept Root Summary",
    "index.recovery.backup": "Restored",
    "index.roots": "nothing_in",
    "index.vectors.protocol": "RecallStore RecallView",
    "installation": "how_to_install",
    "library": "Library",
    "models.model": "Model available_models convert_model pull_model",
    "models.on_disk": "ModelInfo RemovedModel SizedFile Tower model_info model_names remove_model",
    "pictures.decode_pool": "GuardedDecoder GuardedPicture",
    "pictures.preprocess": "Preprocessing",
    "records": "DEFAULT_MODEL EngineChoice FileContent Fingerprint Head Hit LeftOut PairScore Refused Skipped "
    "Stamp Word WordCount",
    "retrieval.curation.audit": "Audit Audited",
    "retrieval.duplicates.result": "Duplicate DuplicateGroup Duplicates Likeness",
    "retrieval.evaluation": "Evaluation",
    "retrieval.indexing": "IndexReport Progress",
    "retrieval.results": "Filled Found Results",
    "retrieval.search.request": "SearchRequest",
    "serving.thumbnails.of_files": "thumbnails",
    "training.data.report": "Amount DataReport",
    "training.run.prepare": "Prepared prepare_training",
    "training.run.settings": "TrainSettings",
    "training.run.train": "TrainResult TrainStart train_model",
    "training.trainer": "StepReport",
    "training.validation": "Validation",
    "transfer.export": "Exported",
    "transfer.import_index": "ImportReport",
    "transfer.placing": "Placed place_files",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
