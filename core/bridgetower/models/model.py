"""A model, as the Python interface has it: a checkpoint and what it runs on, or two parts that are given."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

from bridgetower.errors import ModelError, UsageError
from bridgetower.inputs import (
    AnyPath,
    list_of_depths,
    list_of_texts,
    masked,
    normalised,
    path,
    require_limits,
    require_part,
)
from bridgetower.records import Fingerprint, Head, OnProgress, PairScore, Say, quiet

if TYPE_CHECKING:
    from bridgetower.checkpoints.checkpoint import Checkpoint
    from bridgetower.checkpoints.find import LocalModel
    from bridgetower.encoders.protocol import ImageEngine, Judge, RecallEncoder, Vectors
    from bridgetower.encoders.runtime import Runtime
    from bridgetower.files.captions import Captioned
    from bridgetower.pictures.preprocess import Preprocessing
    from bridgetower.retrieval.encode_pictures import AnyPicture
    from bridgetower.retrieval.evaluation import Evaluation
    from bridgetower.retrieval.fill import Filled
    from bridgetower.retrieval.matching import Results

DEFAULT_MODEL = "BridgeTower/bridgetower-large-itm-mlm-itc"
DEFAULT_DEPTH = 20  # candidates that `evaluate` verifies for each query


class Model:
    """A checkpoint, and what it runs on. It is found at once; its weights are read when they are first needed.

    It plays two roles: as `encoder` it makes the vectors of an index, as `judge` it verifies and fills. May be used by
    several threads.
    """

    def __init__(
        self,
        name: AnyPath,
        *,
        device: str = "auto",
        precision: str = "auto",
        preprocessing: str | None = None,
        fetch: bool = True,
        progress: bool = False,
        say: Say = quiet,
    ) -> None:
        """Find the model: a repository of the Hugging Face Hub (fetched if need be), a folder, or "demo".

        Without `fetch`, for a name that no person gave, it must be on this machine.

        `device` is auto, cpu, cuda or mps; `precision` auto, fp32, bf16 or int8; `preprocessing` "hf", as the
        weights are served everywhere, "plain", as they were trained, or None for that of the checkpoint. While it is
        fetched, `progress` shows bars on stderr; `say` gets a line about what goes on, now and later. Raises
        ModelError, and UsageError for what this machine cannot do.
        """
        from bridgetower.checkpoints.find import DEMO, resolve
        from bridgetower.encoders.runtime import choose_runtime

        self._say, self._lock = say, threading.RLock()
        self.runtime: Runtime | None = choose_runtime(device, precision)  # first: it costs nothing, fetching may
        checkpoint = resolve(os.fspath(path(name)), fetch=fetch, progress=progress, say=say)
        self._checkpoint: Checkpoint | None = (
            checkpoint if preprocessing is None else checkpoint.with_preprocessing(preprocessing)
        )
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
        """A model of parts that are there already: what makes vectors, what verifies, or both.

        They meet the protocols in `bridgetower.encoders.protocol`, and one object may play both roles. Without one of
        them, what needs it raises ModelError. `engine` adds to an index with the vectors of `encoder`; by default,
        pictures are decoded in processes of this machine, and `encoder` makes their vectors. Raises UsageError for no
        part at all and for what lacks members of its protocol. ModelError, now and later, says what a part returned
        that is not of its protocol.
        """
        from bridgetower.encoders import protocol
        from bridgetower.encoders.checked import checked

        parts = ((encoder, protocol.RecallEncoder), (judge, protocol.Judge), (engine, protocol.ImageEngine))
        for part, role in parts:
            if part is not None:
                require_part(part, role)
        model = cls.__new__(cls)
        model._say, model._lock = say, threading.RLock()
        model.runtime, model._checkpoint, model._parts, model._engine = None, None, checked(encoder, judge), engine
        encoder, judge = model._parts
        if judge is not None:
            model.name = judge.name
        elif encoder is not None:
            model.name = encoder.fingerprint.model
        else:
            raise UsageError("a model of no parts: give an encoder, a judge, or both")
        return model

    def __repr__(self) -> str:
        on = f", {self.runtime.precision} on {self.runtime.device}" if self.runtime is not None else ""
        return f"<Model {self.name!r} ({' '.join(sorted(head.name for head in self.heads))}{on})>"

    @property
    def heads(self) -> frozenset[Head]:
        """Of ITC (index, search), ITM (verify, match) and MLM (fill), those that it has."""
        if self._checkpoint is not None:
            return self._checkpoint.heads
        assert self._parts is not None
        encoder, judge = self._parts
        heads = frozenset[Head]() if judge is None else judge.heads
        return heads | {Head.ITC} if encoder is not None else heads - {Head.ITC}

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes its vectors comparable; reads no weights. Raises ModelError without an ITC head."""
        if self._checkpoint is None or self.runtime is None:
            return self.encoder.fingerprint
        from bridgetower.encoders.torch_encoder import fingerprint_of

        return fingerprint_of(self._checkpoint, self.runtime.precision)

    @property
    def preprocessing(self) -> "Preprocessing":
        """What pictures go through before the network sees them."""
        if self._checkpoint is not None:
            return self._checkpoint.preprocessing
        assert self._parts is not None
        [part, *_] = [part for part in self._parts if part is not None]
        return part.preprocessing

    @cached_property
    def _network(self) -> "tuple[RecallEncoder | None, Judge | None]":
        if self._checkpoint is None or self.runtime is None:
            assert self._parts is not None
            return self._parts
        from bridgetower.encoders.torch_encoder import TorchEncoder

        both = TorchEncoder(self._checkpoint, self.runtime, say=self._say)
        return (both if Head.ITC in self.heads else None), both

    def _loaded(self) -> "tuple[RecallEncoder | None, Judge | None]":
        with self._lock:  # by one thread
            return self._network

    @property
    def encoder(self) -> "RecallEncoder":
        """The network as it makes vectors. Raises ModelError."""
        from bridgetower.records import require_heads

        require_heads(self.heads, Head.ITC)
        encoder, _ = self._loaded()
        assert encoder is not None
        return encoder

    @property
    def judge(self) -> "Judge":
        """The network as it verifies and fills. Raises ModelError."""
        _, judge = self._loaded()
        if judge is None:
            raise ModelError(f"{self.name}: this model only makes vectors: give one that judges, too")
        return judge

    @property
    def engine(self) -> "ImageEngine":
        """What adds to an index: it decodes in processes of its own, and loads the network with the first picture."""
        if self._engine is not None:
            return self._engine
        from bridgetower.encoders.local_engine import LocalEngine

        # A checkpoint's encoder is not loaded for it; one that was given is there already.
        batch_size = self.encoder.batch_size if self.runtime is None else self.runtime.batch_size
        return LocalEngine(self.preprocessing, lambda: self.encoder, batch_size)

    def tell_truncated(self, text: str, *readers: "RecallEncoder | Judge") -> None:
        """Say it if one of these parts reads the beginning of the text only."""
        if any(reader.truncates(text) for reader in readers):
            self._say(f'note: the text is longer than the model reads; its end is left out: "{text[:40]}..."')

    def match(
        self, pictures: "Iterable[AnyPicture]", texts: Sequence[str], *, on_progress: OnProgress = quiet
    ) -> list[PairScore]:
        """Score every picture with every text, by every head that there is; pictures in order, texts in order for each.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. One without a path
        is called `<picture N>` in the scores, by its place, from 0. `on_progress(done, total)` counts pictures. Raises
        PictureError at the first one that cannot be read, UsageError, ModelError.
        """
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.matching import match

        candidates, texts = candidates_of(pictures), list_of_texts(texts)
        if not candidates or not texts:
            return []
        judge = self.judge
        for text in dict.fromkeys(texts):
            self.tell_truncated(text, judge)
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

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. Those that cannot
        be read are among the `skipped` of the results. `top` is how many to give at most, `min_match` their least
        probability; `on_progress(done, total)` counts pictures. Raises UsageError, and ModelError without an ITM head.
        """
        from bridgetower.records import require_heads
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.matching import rerank

        text, candidates = normalised(text), candidates_of(pictures)
        require_limits(top=1 if top is None else top, min_match=min_match)
        require_heads(self.heads, Head.ITM)
        judge = self.judge
        self.tell_truncated(text, judge)
        return rerank(judge, text, candidates, top=top, min_match=min_match, on_progress=on_progress)

    def fill(
        self, text: str, pictures: "Iterable[AnyPicture]", *, top: int = 5, on_progress: OnProgress = quiet
    ) -> "Filled":
        """The `top` likeliest words for each `<mask>` of `text`, read out of these pictures, each weighed by its match.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. Those that cannot
        be read are among the `skipped` of the result. `on_progress(done, total)` counts pictures. Raises UsageError
        for a text without `<mask>`, and ModelError without an MLM head, or an ITM head for several pictures.
        """
        from bridgetower.records import require_heads
        from bridgetower.retrieval.encode_pictures import candidates_of
        from bridgetower.retrieval.fill import fill_images

        text, candidates = masked(text), candidates_of(pictures)
        require_limits(top=top)
        require_heads(self.heads, Head.MLM, *([Head.ITM] if len(candidates) > 1 else []))
        judge = self.judge
        self.tell_truncated(text, judge)
        return fill_images(judge, text, candidates, top=top, on_progress=on_progress)

    def evaluate(
        self,
        captions: "AnyPath | Sequence[Captioned]",
        *,
        depths: Sequence[int] | None = None,
        on_progress: OnProgress = quiet,
    ) -> "Iterator[Evaluation]":
        """Measure recall@k on a file of captions: by similarity alone, then for each of `depths` of verification.

        `depths` None is DEFAULT_DEPTH, and none for a model without an ITM head. Pictures are passed over twice, once
        before the first result and one before the second; `on_progress(done, total)` counts the pictures of the
        pass at hand. Raises InputError, UsageError, ModelError.
        """
        from bridgetower.files.captions import Captioned, read_captions
        from bridgetower.retrieval.evaluation import evaluate

        captioned = read_captions(captions) if isinstance(captions, str | os.PathLike) else list(captions)
        wanted = None if depths is None else list_of_depths(depths)
        if not all(isinstance(picture, Captioned) for picture in captioned):
            raise UsageError("captions are those of a file, or a list of Captioned")
        if not any(picture.captions for picture in captioned):
            raise UsageError("no captions: give pictures with at least one text")
        if wanted is None and Head.ITM not in self.heads:
            self._say("note: this model has no ITM head to verify with; it is measured by similarity alone")
            wanted = []
        wanted = [DEFAULT_DEPTH] if wanted is None else wanted
        return evaluate(self.encoder, self.judge if wanted else None, captioned, depths=wanted, on_progress=on_progress)

    def embed_images(self, pictures: "Iterable[AnyPicture]") -> "Vectors":
        """ITC vectors of pictures: float32 [B, E], unit length.

        A picture is a path, a PIL image, an array uint8 [H, W, 3] or [H, W], or the bytes of a file. Raises
        PictureError at the first one that cannot be read, UsageError, ModelError.
        """
        import numpy as np

        from bridgetower.retrieval.encode_pictures import PICTURES_AT_ONCE, candidates_of, load

        found = [np.zeros((0, self.fingerprint.dim), np.float32)]
        candidates = candidates_of(pictures)
        for start in range(0, len(candidates), PICTURES_AT_ONCE):
            some = candidates[start : start + PICTURES_AT_ONCE]
            found.append(self.encoder.embed_images(np.stack([load(one, self.preprocessing) for one in some])))
        return np.concatenate(found)

    def embed_texts(self, texts: Sequence[str]) -> "Vectors":
        """ITC vectors of texts, float32 [Q, E], unit length. Raises UsageError on an empty text, ModelError."""
        import numpy as np

        wanted = list_of_texts(texts)
        return self.encoder.embed_texts(wanted) if wanted else np.zeros((0, self.fingerprint.dim), np.float32)


def available_models() -> "list[LocalModel]":
    """What can be used without a network: the demo model, and what the Hub's cache holds completely."""
    from bridgetower.checkpoints.find import available

    return available()


def pull_model(name: str = DEFAULT_MODEL, *, progress: bool = False, say: Say = quiet) -> "Checkpoint":
    """Fetch the newest commit of a repository, or what is missing of it. Raises ModelError."""
    from bridgetower.checkpoints.find import pull

    return pull(name, progress=progress, say=say)


def convert_model(name: str, folder: AnyPath, *, progress: bool = False, say: Say = quiet) -> "Checkpoint":
    """Write a model as one new folder of safetensors, which `transformers` reads too. Raises ModelError, UsageError."""
    from bridgetower.checkpoints.save import convert

    return convert(name, path(folder), progress=progress, say=say)
