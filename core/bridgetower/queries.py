"""Answer queries to one index: find the parts of a model and the feature cache that each one needs."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridgetower.encoders.protocol import Judge, RecallEncoder
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.models.model_choice import ModelChoice, Notes
from bridgetower.records import FOREIGN, TEXTS_AHEAD, Head, OnHits, OnProgress, require_heads
from bridgetower.retrieval.fill import fill_library
from bridgetower.retrieval.results import Filled, Found
from bridgetower.retrieval.search.pages import NOTHING, pages
from bridgetower.retrieval.search.request import SearchRequest


@dataclass(frozen=True, slots=True)
class Queries:
    """Answer queries with the reader that the caller lends. Raises as `Library` does."""

    models: ModelChoice
    features_cache: int | None  # bytes; None as the index says
    features_dir: Path | None  # absolute
    notes: Notes

    def pages(
        self, reader: IndexReader, request: SearchRequest, on_progress: OnProgress, on_hits: OnHits
    ) -> Generator[Found]:
        """Find pictures, and yield them in pages. The judge is loaded when `on_hits` has got the first ones."""
        request.filter_in(reader)  # raises for a place that is not known, before a model is loaded
        if not len(reader):  # an empty index may have no model yet
            on_hits(NOTHING.hits)
            yield NOTHING
            return
        if not request.exact:
            reader.connect()
        encoder, load_judge = self._parts(reader, request)
        yield from pages(reader, request, encoder, load_judge, self._cache(reader), on_progress, on_hits)

    def encode_ahead(self, reader: IndexReader, texts: Sequence[str]) -> None:
        """Encode texts together that are asked for next, where the index has pictures and a model of its own."""
        if texts and len(reader) and reader.fingerprint.precision_family != FOREIGN:
            self.models.of(reader).encoder.embed_texts(texts[:TEXTS_AHEAD])

    def fill(
        self, reader: IndexReader, text: str, top: int, depth: int | None, each: bool, on_progress: OnProgress
    ) -> Filled:
        """Fill the masks of a normalised text from the `depth` pictures that it fits best."""
        if not len(reader):
            return Filled((), None, ())
        reader.connect()
        model = self.models.of(reader)
        require_heads(model.heads, Head.ITC, Head.ITM, Head.MLM)
        encoder, judge = model.encoder, model.judge
        model.tell_truncated(text, encoder, judge)
        cache = self._cache(reader)
        return fill_library(
            reader, encoder, judge, text, top=top, depth=depth, each=each, cache=cache, on_progress=on_progress
        )

    def _parts(
        self, reader: IndexReader, request: SearchRequest
    ) -> tuple[RecallEncoder | None, Callable[[], Judge] | None]:
        """Return the encoder of a model, and what loads its judge; None for a part that a request does not need."""
        if not request.needs_encoder and not request.verifies:
            return None, None
        model = self.models.of(reader) if request.needs_encoder else self.models.judge_for(reader)
        recall = [Head.ITC] if request.needs_encoder else []
        require_heads(model.heads, *recall)
        if request.verifies:
            way_out = "; or verify nothing: --no-rerank, or a depth of 0"
            require_heads(model.heads, *recall, Head.ITM, way_out=way_out)
        encoder = model.encoder if request.needs_encoder else None
        told: list[str] = []
        if encoder is not None:
            told = list(filter(encoder.truncates, request.texts))
            for text in told:
                model.tell_truncated(text, encoder)

        def load_judge() -> Judge:
            judge = model.judge
            for text in (*request.texts, *request.without):
                if text not in told:
                    model.tell_truncated(text, judge)
            return judge

        return encoder, load_judge if request.verifies else None

    def _cache(self, reader: IndexReader) -> FeatureCache | None:
        cache = reader.feature_cache(self.features_cache, self.features_dir)
        if cache is not None and cache.is_link:
            self.notes(
                f"note: {cache.directory}: a link, and not used, so that every search reads its pictures again: remove "
                "it; to keep what the model saw elsewhere, use --features-dir DIR"
            )
        return cache
