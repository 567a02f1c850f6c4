"""A model in the Python interface: a checkpoint on a device, or one or two given parts."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

from bridgetower.errors import ModelError, UsageError
from bridgetower.inputs import (
    AnyPath,
    count_of,
    depth_of,
    iterable,
    least_match,
    list_of_depths,
    list_of_texts,
    listener,
    masked,
    model_name,
    normalised,
    number,
    one_of,
    path,
    require_part,
    short,
    worst_of,
)
from bridgetower.records import (
    DEFAULT_DEPTH,
    DEFAULT_MODEL,
    DEMO,
    DEVICES,
    FITS,
    INT8,
    LOCAL,
    PRECISIONS,
    PREPROCESSINGS,
    EngineChoice,
    Fingerprint,
    Head,
    OnProgress,
    PairScore,
    Say,
    Skipped,
    Stamp,
    quiet,
)

if TYPE_CHECKING:
    from bridgetower.checkpoints.checkpoint import Checkpoint
    from bridgetower.checkpoints.find import LocalModel
    from bridgetower.encoders.protocol import ImageEngine, Judge, RecallEncoder, Vectors
    from bridgetower.encoders.runtime import Runtime
    from bridgetower.files.captions.captioned import Captioned
    from bridgetower.pictures.preprocess import Preprocessing
    from bridgetower.retrieval.curation.audit import Audit, Audited
    from bridgetower.retrieval.encode_pictures import AnyPicture
    from bridgetower.retrieval.evaluation import Evaluation
    from bridgetower.retrieval.results import Filled, Results


def engine_choice(engine: object) -> EngineChoice:
    """Return an engine that is given by its name, or as it is. Raises UsageError, also where its extra is missing."""
    choice = EngineChoice(engine) if isinstance(engine, str) else engine
    if not isinstance(choice, EngineChoice):
        raise UsageError(f"{short(choice)}: an engine is given by its name, or as an EngineChoice")
    if choice.is_ray and not all(map(find_spec, ("ray", "grpc"))):
        from bridgetower.installation import how_to_install

        raise UsageError(f"--engine {choice.name} needs the extra ray: {how_to_install('ray')}")
    return choice


def never(place: int) -> bool:
    """Want no features."""
    return False


class Model:
    """A checkpoint on a device. It is found at once; its weights are read when they are first needed.

    A model has two roles: as `encoder` it makes the vectors of an index, as `judge` it verifies and fills. May be used
    by several threads.
    """

    def __init__(
        self,
        name: AnyPath,
        *,
        device: str = "auto",
        precision: str = "auto",
        preprocessing: str | None = None,
        engine: str | EngineChoice = LOCAL,
        fetch: bool = True,
        progress: bool = False,
        say: Say = quiet,
    ) -> None:
        """Find the model: a repository of the Hugging Face Hub (fetched if need be), a folder, or "demo".

        Without `fetch` it must be on this machine: for a name that no person gave.

        `device` is auto, cpu, cuda or mps; `precision` auto, fp32, bf16 or int8; `preprocessing` "hf", as the
        weights are served everywhere, "plain", as they were trained, or None for the default of the checkpoint.
        `engine` is where many pictures become vectors, for an index or an evaluation: "local", "ray" or
        "ray://HOST:PORT", or an EngineChoice. While the model is fetched, `progress` shows bars on stderr; `say` gets
        notes for people, now and later. Raises ModelError, and UsageError for an unknown device, precision or engine.
        One that this machine lacks raises it before a fetch, or when the network is first needed: texts become vectors
        without it.
        """
        from bridgetower.checkpoints.find import resolve
        from bridgetower.encoders.runtime import is_on_every_machine

        self._say, self._lock = listener(say), threading.RLock()
        self._engine_choice = engine_choice(engine)
        if preprocessing is not None:
            one_of(PREPROCESSINGS, "preprocessing", preprocessing)
        self._device, self._precision = one_of(DEVICES, "device", device), one_of(PRECISIONS, "precision", precision)
        self._chosen: Runtime | None = None
        if fetch and not is_on_every_machine(device, precision):
            self._choose_runtime()  # before the fetch, as it may raise
        checkpoint = resolve(model_name(name), fetch=fetch, progress=progress, say=say)
        self._checkpoint: Checkpoint | None = (
            checkpoint if preprocessing is None else checkpoint.with_preprocessing(preprocessing)
        )
        self.has_default_preprocessing = preprocessing in (None, checkpoint.preprocessing.name)  # of the checkpoint
        self._parts: tuple[RecallEncoder | None, Judge | None] | None = None
        self._engine: ImageEngine | None = None
        self.name = checkpoint.name
        if self.name == DEMO:
            say("note: the demo model knows drawn scenes only; of photographs it knows nothing")

    @classmethod
    def from_parts(
        cls,
        encoder: "RecallEncoder | None",
        judge: "Judge | None" = None,
        *,
        engine: "ImageEngine | None" = None,
        say: Say = quiet,
    ) -> Self:
        """Make a model of given parts: an encoder that makes vectors, a judge that verifies, or both.

        They meet the protocols in `bridgetower.encoders.protocol`, and one object may play both roles. A method whose
        part is missing raises ModelError. `engine` encodes pictures for an index, with the vectors of `encoder`; by
        default, worker processes of this machine decode them, and `encoder` makes their vectors. Raises UsageError
        without any part, and for a part that lacks members of its protocol; later, ModelError names a part that
        returns something else than its protocol says.
        """
        from bridgetower.encoders import protocol
        from bridgetower.encoders.checked import checked

        parts = ((encoder, protocol.RecallEncoder), (judge, protocol.Judge), (engine, protocol.ImageEngine))
        for part, role in parts:
            if part is not None:
                require_part(part, role)
        model = cls.__new__(cls)
        model._say, model._lock = listener(say), threading.RLock()
        model.has_default_preprocessing, model._engine_choice = True, LOCAL
        model._checkpoint, model._parts, model._engine = None, checked(encoder, judge), engine
        encoder, judge = model._parts
        if judge is not None:
            model.name = judge.name
        elif encoder is not None:
            model.name = encoder.fingerprint.model
        else:
            raise UsageError("a model of no parts: give an encoder, a judge, or both")
        return model

    def __repr__(self) -> str:
        runtime = None if self._checkpoint is None else self._chosen  # choosing it imports PyTorch
        on = "" if runtime is None else f", {runtime.precision} on {runtime.device}"
        return f"<Model {self.name!r} ({' '.join(sorted(head.name for head in self.heads))}{on})>"

    @property
    def heads(self) -> frozenset[Head]:
        """Its heads: some of ITC (index, search), ITM (verify, match) and MLM (fill)."""
        if self._checkpoint is not None:
            return self._checkpoint.heads
        assert self._parts is not None
        encoder, judge = self._parts
        heads = frozenset[Head]() if judge is None else judge.heads
        return heads | {Head.ITC} if encoder is not None else heads - {Head.ITC}

    @property
    def runtime(self) -> "Runtime | None":
        """The device and the precision; the first call imports PyTorch. None for given parts. Raises UsageError."""
        return None if self._checkpoint is None else self._choose_runtime()

    def _choose_runtime(self) -> "Runtime":
        from bridgetower.encoders.runtime import choose_runtime

        with self._lock:
            self._chosen = self._chosen or choose_runtime(self._device, self._precision)
        return self._chosen

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of its vectors; reads no weights. Raises ModelError without an ITC head."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> Fingerprint:
        if self._checkpoint is None:
            return self.encoder.fingerprint
        from bridgetower.encoders.torch_encoder import fingerprint_of

        return fingerprint_of(self._checkpoint, self._precision)

    @property
    def preprocessing(self) -> "Preprocessing":
        """How pictures become pixels."""
        if self._checkpoint is not None:
            return self._checkpoint.preprocessing
        assert self._parts is not None
        [part, *_] = [part for part in self._parts if part is not None]
        return part.preprocessing

    @property
    def stamp(self) -> Stamp:
        """All that a match depends on besides the text and the picture. The first call may import PyTorch."""
        checkpoint, runtime = self._checkpoint, self.runtime
        return Stamp(
            self.name,
            None if checkpoint is None else checkpoint.weights_sha256,
            None if runtime is None else runtime.precision,
            self.preprocessing.name,
        )

    @cached_property
    def _network(self) -> "tuple[RecallEncoder | None, Judge | None]":
        if self._checkpoint is None:
            assert self._parts is not None
            return self._parts
        from bridgetower.encoders.torch_encoder import TorchEncoder

        both = TorchEncoder(self._checkpoint, self._choose_runtime, say=self._say)
        return (both if Head.ITC in self.heads else None), both

    def _loaded(self) -> "tuple[RecallEncoder | None, Judge | None]":
        with self._lock:  # one thread makes the parts
            return self._network

    @property
    def encoder(self) -> "RecallEncoder":
        """The part that makes vectors; it reads weights when it needs them. Raises ModelError."""
        from bridgetower.records import require_heads

        require_heads(self.heads, Head.ITC)
        encoder, _ = self._loaded()
        assert encoder is not None
        return encoder

    @property
    def judge(self) -> "Judge":
        """The part that verifies and fills; it reads weights when it needs them. Raises ModelError."""
        _, judge = self._loaded()
        if judge is None:
            raise ModelError(f"{self.name}: this model only makes vectors: give one that judges, too")
        return judge

    @property
    def engine(self) -> "ImageEngine":
        """Decodes in worker processes and encodes for an index; reads the weights with the first picture."""
        return self.engine_with_features(never)

    def engine_with_features(self, wants: "Callable[[int], bool]") -> "ImageEngine":
        """Return `engine`; if `has_one_pass`, it also returns the features of the contents that `wants` accepts, by
        their places from 0."""
        if self._engine is not None:
            return self._engine
        from bridgetower.encoders.local_engine import LocalEngine

        choice = self._engine_choice
        if choice.is_ray:
            return self._ray_engine()
        # A checkpoint's encoder is not loaded for it; one that was given is there already.
        runtime = self.runtime
        batch_size = self.encoder.batch_size if runtime is None else runtime.batch_size
        return LocalEngine(
            self.preprocessing,
            lambda: self.encoder,
            batch_size,
            load_judge=lambda: self.judge,
            wants=wants if self.has_one_pass else never,
            processes=choice.workers,
        )

    def _ray_engine(self) -> "ImageEngine":
        from bridgetower.encoders.cluster.actor import CheckpointLoader
        from bridgetower.encoders.cluster.ray_engine import RayEngine

        choice, runtime = self._engine_choice, self._choose_runtime()
        if self._device == "mps":
            raise UsageError("device mps: Ray gives its workers none; use --device auto or cpu")
        # The workers compute in the precision of this machine, so that the vectors are those that it would make.
        return RayEngine(
            self.preprocessing,
            runtime.batch_size,
            CheckpointLoader(self.name, runtime.precision, self.preprocessing.name),
            self.fingerprint,
            address=choice.address,
            device="cpu" if runtime.precision == INT8 else self._device,
            number=choice.workers,
            shared_paths=choice.shared_paths,
            say=self._say,
        )

    @property
    def has_one_pass(self) -> bool:
        """Whether one pass through a network gives the vector of a picture and the features for its judge."""
        one: object = None if self._parts is None else self._parts[0]
        is_here = self._engine is None and not self._engine_choice.is_ray
        return is_here and (self._parts is None or self._parts[1] is one)

    def tell_truncated(self, text: str, *readers: "RecallEncoder | Judge") -> None:
        """Note if one of these parts reads only the beginning of the text."""
        if any(reader.truncates(text) for reader in readers):
            self._say(f'note: the text is longer than the model reads; its end is left out: "{text[:40]}..."')

    def match(
        self,
        pictures: "Iterable[AnyPicture]",
        texts: Sequence[str],
        *,
        top: int | None = None,
        depth: int | None = None,
        on_progress: OnProgress = quiet,
    ) -> list[PairScore]:
        """Score every picture with every text, by each head of the model; ordered by picture, then by text.

        With `top`, only the best texts of each picture, at most so many, best first: by match, or by similarity where
        the model has no ITM head. It then matches only the `depth` texts of each picture whose similarity is highest
        (by default 20 on a CPU, 100 on a GPU), or all of them where the model has no ITC head.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. Without a path it
        is called `<picture N>` in the scores, N being its place from 0. `on_progress(done, total)` counts pictures.
        Raises PictureError at the first one that cannot be read, UsageError, ModelError.
        """
        from bridgetower.retrieval.best_texts import best_texts
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.matching import match

        candidates, texts = candidates_of(pictures), list_of_texts(texts)
        top, depth = None if top is None else count_of(top), depth_of(depth, least=1)
        if depth is not None and top is None:
            raise UsageError("a depth is for the best texts of each picture: give a top, too")
        listener(on_progress)
        if not candidates or not texts:
            return []
        judge = self.judge
        for text in dict.fromkeys(texts):
            self.tell_truncated(text, judge)
        if top is not None:
            depth, number = depth or judge.default_depth, len(dict.fromkeys(texts))
            if number > depth and judge.heads >= {Head.ITC, Head.ITM}:
                self._say(
                    f"note: {depth} of {number} texts are matched with each picture, the most similar ones; a larger "
                    "--depth matches more"
                )
            return list(best_texts(judge, candidates, texts, top=top, depth=depth, on_progress=on_progress))
        return list(match(judge, candidates, texts, on_progress=on_progress))

    def rerank(
        self,
        text: str,
        pictures: "Iterable[AnyPicture]",
        *,
        top: int | None = None,
        min_match: float | None = None,
        on_progress: OnProgress = quiet,
    ) -> "Results":
        """Order pictures from anywhere by how probably `text` is true of them; no index is needed.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. Unreadable
        pictures are in the `skipped` of the results. There are at most `top` hits, each with a probability of at least
        `min_match`; `on_progress(done, total)` counts pictures. Raises UsageError, and ModelError without an ITM head.
        """
        from bridgetower.records import require_heads
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.matching import rerank

        text, candidates = normalised(text), candidates_of(pictures)
        top, min_match = None if top is None else count_of(top), least_match(min_match)
        listener(on_progress)
        require_heads(self.heads, Head.ITM)
        judge = self.judge
        self.tell_truncated(text, judge)
        return rerank(judge, text, candidates, top=top, min_match=min_match, on_progress=on_progress)

    def fill(
        self, text: str, pictures: "Iterable[AnyPicture]", *, top: int = 5, on_progress: OnProgress = quiet
    ) -> "Filled":
        """Predict the `top` likeliest words for each `<mask>` of `text` from these pictures, weighted by match.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. Unreadable
        pictures are in the `skipped` of the result. `on_progress(done, total)` counts pictures. Raises UsageError
        for a text without `<mask>`, and ModelError without an MLM head, or an ITM head for several pictures.
        """
        from bridgetower.records import require_heads
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.fill import fill_images

        text, candidates, top = masked(text), candidates_of(pictures), count_of(top)
        listener(on_progress)
        require_heads(self.heads, Head.MLM, *([Head.ITM] if len(candidates) > 1 else []))
        judge = self.judge
        self.tell_truncated(text, judge)
        return fill_images(judge, text, candidates, top=top, on_progress=on_progress)

    def evaluate(
        self,
        captions: "AnyPath | Iterable[Captioned]",
        *,
        depths: Sequence[int] | None = None,
        credit_same: bool = True,
        on_progress: OnProgress = quiet,
    ) -> "Iterator[Evaluation]":
        """Measure recall@k on a file of captions, or on a list of Captioned: by similarity alone, then for each of
        `depths` of verification.

        `depths` None is DEFAULT_DEPTH, and none for a model without an ITM head. A text that several pictures have word
        for word is right for each of them, or without `credit_same` for its own only; the results say how many such
        texts there are, and how many the model cuts. Pictures are read twice, before the first result and before the
        second; `on_progress(done, total)` counts the pictures of the current pass.
        Raises InputError, UsageError, ModelError.
        """
        from bridgetower.files.captions.captioned import Captioned
        from bridgetower.files.captions.read import read_captions
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.evaluation import evaluate

        captioned = (
            read_captions(captions)
            if isinstance(captions, str | os.PathLike)
            else list(iterable(captions, "captioned pictures"))
        )
        listener(on_progress)
        wanted = None if depths is None else list_of_depths(depths)
        if not all(isinstance(picture, Captioned) for picture in captioned):
            raise UsageError("captions are those of a file, or a list of Captioned")
        if not captioned:
            raise UsageError("no captions: give at least one picture with a text")
        candidates_of([picture.image for picture in captioned])  # raises before weights are read
        if wanted is None and Head.ITM not in self.heads:
            self._say("note: this model has no ITM head to verify with; it is measured by similarity alone")
            wanted = []
        wanted = [DEFAULT_DEPTH] if wanted is None else wanted
        judge = self.judge if wanted else None
        return evaluate(
            self.encoder,
            judge,
            captioned,
            depths=wanted,
            credit_same=credit_same,
            engine=None if self._engine_choice == LOCAL else self.engine,
            on_progress=on_progress,
        )

    def audit(
        self,
        captions: "AnyPath | Iterable[Captioned]",
        *,
        below: float = FITS,
        worst: int | float | None = None,
        on_progress: OnProgress = quiet,
        on_row: "Callable[[Audited, int], object]" = quiet,
    ) -> "Audit":
        """Judge whether each caption of a file, or of a list of Captioned, is true of its picture; no index is needed.

        The rows of the result are the captions with a match less than `below`; or with `worst` so many of the worst, as
        an int, or such a share of all, as a float in (0, 1]. They come worst first, each with the word that the
        picture supports least and the word that mends it, by the MLM head; without that head both are None, and `say`
        gets a line. `on_progress(done, total)` counts the pictures that are matched; then `on_row(row, total)` gets
        each row as soon as it is known. Unreadable and missing pictures are in the `skipped` of the result. Raises
        InputError, UsageError, and ModelError without an ITM head.
        """
        from bridgetower.files.captions.captioned import Captioned
        from bridgetower.files.captions.read import read_captions
        from bridgetower.records import require_heads
        from bridgetower.retrieval.curation.audit import audit
        from bridgetower.retrieval.encode_pictures import candidates_of

        below, worst = number("below", below, least=0, most=1), worst_of(worst)
        missing: list[Skipped] = []
        captioned = (
            read_captions(captions, on_missing=missing.append)
            if isinstance(captions, str | os.PathLike)
            else list(iterable(captions, "captioned pictures"))
        )
        listener(on_progress), listener(on_row)
        if not all(isinstance(picture, Captioned) for picture in captioned):
            raise UsageError("captions are those of a file, or a list of Captioned")
        candidates_of([picture.image for picture in captioned])  # raises before weights are read
        require_heads(self.heads, Head.ITM)
        if Head.MLM not in self.heads:
            self._say("note: this model has no MLM head to name a word with; words and suggestions are left out")
        found = audit(self.judge, captioned, below=below, worst=worst, on_progress=on_progress, on_row=on_row)
        return replace(found, skipped=(*missing, *found.skipped))

    def embed_images(self, pictures: "Iterable[AnyPicture]", *, on_progress: OnProgress = quiet) -> "Vectors":
        """Return ITC vectors of pictures, float32 [B, E], unit length.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file.
        `on_progress(done, total)` counts pictures. Raises PictureError at the first one that cannot be read,
        UsageError, ModelError.
        """
        import numpy as np

        from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE, candidates_of, load

        found = [np.zeros((0, self.fingerprint.dim), np.float32)]
        candidates = candidates_of(pictures)
        listener(on_progress)
        for start in range(0, len(candidates), PICTURES_AT_ONCE):
            some = candidates[start : start + PICTURES_AT_ONCE]
            found.append(self.encoder.embed_images(np.stack([load(one, self.preprocessing) for one in some])))
            on_progress(start + len(some), len(candidates))
        return np.concatenate(found)

    def embed_texts(self, texts: Sequence[str]) -> "Vectors":
        """Return ITC vectors of texts, float32 [Q, E], unit length. Raises UsageError on an empty text, ModelError."""
        import numpy as np

        wanted = list_of_texts(texts)
        return self.encoder.embed_texts(wanted) if wanted else np.zeros((0, self.fingerprint.dim), np.float32)


def available_models() -> "list[LocalModel]":
    """List the models that can be used offline: the demo model, and the complete ones in the Hub's cache."""
    from bridgetower.checkpoints.find import available

    return available()


def pull_model(name: AnyPath = DEFAULT_MODEL, *, progress: bool = False, say: Say = quiet) -> "Checkpoint":
    """Fetch the newest commit of a repository, except files that are here already. Raises ModelError, UsageError."""
    from bridgetower.checkpoints.find import pull

    return pull(model_name(name), progress=progress, say=listener(say))


def convert_model(name: AnyPath, folder: AnyPath, *, progress: bool = False, say: Say = quiet) -> "Checkpoint":
    """Write a model as one new folder of safetensors, which `transformers` reads too. Raises ModelError, UsageError."""
    from bridgetower.checkpoints.save import convert

    return convert(model_name(name), path(folder), progress=progress, say=listener(say))
