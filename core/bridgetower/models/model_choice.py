"""Choose the model of a library: the model that made its index, or the model for a new index."""

import os
import threading
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bridgetower.errors import ModelError, UsageError
from bridgetower.inputs import one_of
from bridgetower.models.model import Model
from bridgetower.records import (
    DEFAULT_MODEL,
    DEVICES,
    FOREIGN,
    INT8,
    LOCAL,
    PRECISIONS,
    PREPROCESSINGS,
    EngineChoice,
    Fingerprint,
    Head,
    Say,
)

if TYPE_CHECKING:
    from bridgetower.index.reader import IndexReader

_MOST_TOLD = 1000  # lines that are remembered; a process may run for months


class Notes:
    """Pass each line to `say` once."""

    def __init__(self, say: Say) -> None:
        self._say, self._told, self._lock = say, set[str](), threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock:
            if line in self._told:
                return
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(line)
        self._say(line)


@dataclass(slots=True)
class _Slot:
    model: Model | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)  # held while a thread finds the model


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of `Library` that choose a model. Raises UsageError for values that contradict each other."""

    given: Model | str | None = None
    default_model: str | None = None
    device: str = "auto"
    precision: str | None = None
    default_precision: str = "auto"
    preprocessing: str | None = None
    progress: bool = False
    engine: EngineChoice = LOCAL

    def __post_init__(self) -> None:
        one_of(DEVICES, "device", self.device)
        one_of(PRECISIONS, "default_precision", self.default_precision)
        if self.precision is not None:
            one_of(PRECISIONS, "precision", self.precision)
        if self.preprocessing is not None:
            one_of(PREPROCESSINGS, "preprocessing", self.preprocessing)
        if isinstance(self.given, Model):
            deciding = (field for field in fields(self) if field.name not in ("given", "progress"))
            if beside := [field.name for field in deciding if getattr(self, field.name) != field.default]:
                raise UsageError(f"a model that is ready has its {', '.join(beside)}: say that where it is made")

    def must_compare(self, made_by: Fingerprint) -> bool:
        """Return whether a model must be found to compare these options with an index.

        An option that says what the index says needs no model before pictures are to be encoded.
        """
        if isinstance(self.given, Model):
            return True
        # a fingerprint names a folder by its real path
        given = os.path.realpath(self.given) if self.given is not None and os.path.isabs(self.given) else self.given
        return (
            given not in (None, made_by.model)
            or self.preprocessing not in (None, made_by.preprocessing)
            or (self.precision not in (None, "auto") and (self.precision == INT8) != (made_by.precision_family == INT8))
        )


class ModelChoice:
    """Find each model once, under any of its names. May be used by several threads."""

    def __init__(self, directory: Path, options: ModelOptions, notes: Notes) -> None:
        self._directory, self._options, self._notes = directory, options, notes
        self._slots: dict[tuple[str, str, str | None], _Slot] = {}
        self._found: dict[tuple[str, str, str], Model] = {}
        self._lock = threading.Lock()  # guards both; never held while a model is being found

    def for_new(self) -> Model:
        """Return the model for a new index. Raises ModelError, UsageError."""
        options = self._options
        if isinstance(options.given, Model):
            return options.given
        return self._find(
            options.given or options.default_model or DEFAULT_MODEL,
            options.precision or options.default_precision,
            options.preprocessing,
            fetch=True,
        )

    def to_add(self, made_by: Fingerprint | None) -> Model:
        """Return the model that adds pictures to the index with this fingerprint; None is an index without pictures.

        Of such an index the model that it was begun with is only a default, which is not fetched.
        """
        from bridgetower.index.compatibility import begun_by

        if made_by is not None:
            return self.that_made(made_by, to_add=True)
        options = self._options
        if options.given or options.default_model or (begun := begun_by(self._directory)) is None:
            return self.for_new()
        precision = options.precision or options.default_precision
        preprocessing = options.preprocessing or begun.preprocessing
        return self._find(begun.model, precision, preprocessing, fetch=begun.model == DEFAULT_MODEL)

    def require_usable(self, made_by: Fingerprint | None) -> None:
        """Raise what a search of the index with this fingerprint would meet, where no model need be fetched to know.

        The weights are not loaded; those of a model in another place than the index says are hashed once. Raises
        UsageError for a device or a precision that this machine lacks, ModelError, StoreError.
        """
        from bridgetower.checkpoints.find import asks_the_hub
        from bridgetower.encoders.runtime import choose_runtime, is_on_every_machine
        from bridgetower.index.compatibility import require_same

        options = self._options
        precision = options.precision or options.default_precision
        if not is_on_every_machine(options.device, precision):
            choose_runtime(options.device, precision)
        if made_by is None or made_by.precision_family == FOREIGN or isinstance(options.given, Model):
            return
        name = options.given or made_by.model
        if name in (options.given, options.default_model) and asks_the_hub(name):
            return
        model = self.that_made(made_by)
        if model.name != made_by.model:
            given = replace(model.fingerprint, precision_family=made_by.precision_family)  # queries may differ in it
            require_same(self._directory, made_by, given)

    def of(self, reader: "IndexReader") -> Model:
        """Return the model of an open index. Raises as `that_made` does, and StoreError if it does not fit."""
        model = self.that_made(reader.fingerprint)
        reader.check(model.fingerprint)
        return model

    def judge_for(self, reader: "IndexReader") -> Model:
        """Return the model that verifies the candidates of a vector: the given model, else the model of the index, or,
        for foreign vectors, the model for a new index."""
        if self._options.given is None and reader.fingerprint.precision_family != FOREIGN:
            return self.of(reader)
        return self.for_new()

    def that_made(self, made_by: Fingerprint, *, to_add: bool = False) -> Model:
        """Return the model that made an index: in its preprocessing and, if `to_add` pictures, in its precision.

        Nothing is fetched for a name that only the index gives. Raises ModelError, StoreError, UsageError.
        """
        from bridgetower.encoders.runtime import precision_for
        from bridgetower.index.compatibility import require_ours

        options = self._options
        require_ours(self._directory, made_by)
        if made_by.preprocessing not in PREPROCESSINGS:
            raise ModelError(
                f"{self._directory}: made with preprocessing {made_by.preprocessing:.40}, which this version does not "
                "know: use a newer one, or build another index"
            )
        if isinstance(options.given, Model):
            self._tell_tokenizer(made_by, options.given)
            return options.given
        precision = options.precision or options.default_precision
        if to_add:
            precision = self._in_family(made_by.precision_family, precision)
            self._tell_kept(made_by)
            precision = precision_for(made_by.precision_family, precision)
        name = options.given or made_by.model
        fetch = name in (options.given, options.default_model)
        model = self._find(name, precision, options.preprocessing or made_by.preprocessing, fetch=fetch)
        self._tell_tokenizer(made_by, model)
        return model

    def _find(self, name: str, precision: str, preprocessing: str | None, *, fetch: bool) -> Model:
        with self._lock:
            slot = self._slots.setdefault((name, precision, preprocessing), _Slot())
        with slot.lock:
            if slot.model is None:
                model = Model(
                    name,
                    device=self._options.device,
                    precision=precision,
                    preprocessing=preprocessing,
                    engine=self._options.engine,
                    fetch=fetch,
                    progress=self._options.progress,
                    say=self._notes,
                )
                with self._lock:
                    slot.model = self._found.setdefault((model.name, precision, model.preprocessing.name), model)
            return slot.model

    def _in_family(self, family: str, precision: str) -> str:
        """Return the precision for adding to an index of this family: the required one, else one of the family."""
        if self._options.precision is None and precision != "auto" and (precision == INT8) != (family == INT8):
            kept = INT8 if family == INT8 else "fp32 or bf16"
            self._notes(f"note: the index keeps its precision, {kept}; {precision} is for new ones")
            return "auto"
        return precision

    def _tell_kept(self, made_by: Fingerprint) -> None:
        """Note that the index keeps its model where the user's default is another one."""
        default = self._options.default_model
        if self._options.given is not None or default in (None, made_by.model, DEFAULT_MODEL):
            return
        if (
            os.path.realpath(os.path.expanduser(default)) != made_by.model
        ):  # a fingerprint names a folder by its real path
            self._notes(f"note: the index keeps its model {made_by.model:.300}; {default} is for new ones")

    def _tell_tokenizer(self, made_by: Fingerprint, model: Model) -> None:
        if Head.ITC not in model.heads or made_by.tokenizer_sha256 is None:
            return
        now = model.fingerprint
        if now.tokenizer_sha256 not in (None, made_by.tokenizer_sha256):
            self._notes(
                f"note: the tokenizer of {now.model} is another than when the index was made: the same words may find "
                "other pictures; fetch the one that belongs to these weights, or build a new index"
            )
