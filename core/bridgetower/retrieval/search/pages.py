"""Search: recall, verify, and yield the hits in pages."""

from collections.abc import Callable, Generator, Iterator
from itertools import islice

from bridgetower.encoders.protocol import Judge, RecallEncoder
from bridgetower.errors import UsageError
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.records import Hit, OnHits, OnProgress, quiet
from bridgetower.retrieval.candidates import Candidates
from bridgetower.retrieval.results import Found
from bridgetower.retrieval.search.ranking import Ranking
from bridgetower.retrieval.search.recall import query_of
from bridgetower.retrieval.search.request import SearchRequest

NOTHING = Found((), 0, None, (), 0, (), (), None, 0)  # in an index without pictures


def pages(
    reader: IndexReader,
    request: SearchRequest,
    encoder: RecallEncoder | None,
    load_judge: Callable[[], Judge] | None,
    cache: FeatureCache | None = None,
    on_progress: OnProgress = quiet,
    on_hits: OnHits = quiet,
) -> Generator[Found]:
    """Find pictures, and yield them in pages of at most `request.top` hits; at least one page, which may be empty.

    The first page begins after the `request.offset` first hits. Where hits are folded, a page counts rows, `on_hits`
    gets them folded at last only, and what is like a row of an earlier page is left out.

    `encoder` may be None where a vector recalls, `load_judge` where nothing is verified. The judge is loaded after
    `on_hits` has got the recalled pictures; `on_hits` then gets the hits of the first page after each verified batch,
    as if verification ended there, and at last as they are. With a least match, pictures that are still to be verified
    are among them until the last. `cache` keeps the features of pictures for the next search.
    `on_progress(done, total)` counts verified pictures.
    Raises UnknownPlaceError, UsageError or InputError for a vector that is not of this index, PictureError
    for the picture of the request; StoreError, ModelError.
    """
    if request.verifies and load_judge is None:
        raise UsageError("verifying needs a model that judges: give one, or a depth of 0")
    query = query_of(reader, request, encoder)
    limits, files = request.filter_in(reader), request.files_in(reader)
    without = () if request.keep_self else query.contents
    candidates = Candidates(reader, query.vector, limits, files, without=without, exact=request.exact)
    best_similarity = None
    if request.min_similarity is not None:
        best_similarity = next((best.similarity for best in candidates.fork().take(1)), None)
    ranking = Ranking(request, candidates, on_hits)
    if load_judge is not None and request.verifies:
        ranking.show()
        ranking.verify(load_judge(), cache, on_progress)
    take, is_first, is_last = _rows(reader, request, candidates, ranking.ordered()), True, False
    if request.offset:
        take(request.offset)
    while not is_last:
        hits = take(request.top)
        is_last = len(hits) < request.top
        found = Found(
            hits=tuple(candidates.described(hit) for hit in hits),
            verified=len(ranking.verified),
            best_match=next((v.hit.match for v in ranking.verified if not v.ruled_out), None),
            skipped=tuple(ranking.unreadable),
            gone=candidates.gone,
            barred=tuple(candidates.barred),
            away=tuple(candidates.away),
            damage=reader.damage,
            depth=ranking.depth,
            in_cloud=sum(candidate.in_cloud for candidate in ranking.left),
            best_similarity=best_similarity,
            ruled_out=sum(v.ruled_out for v in ranking.verified),
        )
        if is_first:
            on_hits(found.hits)
        if is_first or hits:
            yield found
        is_first = False


def _rows(
    reader: IndexReader, request: SearchRequest, candidates: Candidates, hits: Iterator[Hit]
) -> Callable[[int], list[Hit]]:
    """Return what takes the next so many hits, or where they are to be unique, rows of them."""
    if not request.unique:
        return lambda number: list(islice(hits, number))
    from bridgetower.retrieval.duplicates.folding import Folded  # it decodes, so it loads Pillow

    return Folded(reader.catalog, candidates.hash_of, hits).take
