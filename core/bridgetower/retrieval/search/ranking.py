"""The order of the hits of a search, while its candidates are verified."""

import time
from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from itertools import chain, islice, takewhile

from bridgetower.encoders.protocol import Judge
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.records import DEFAULT_DEPTH, Candidate, Head, Hit, OnHits, OnProgress, Skipped, quiet, require_heads
from bridgetower.retrieval.candidates import Candidates
from bridgetower.retrieval.matching import Verified, matching, verify
from bridgetower.retrieval.search.request import SearchRequest


class Ranking:
    """The hits of a search as they stand: those that are verified by match, then the others by similarity."""

    def __init__(self, request: SearchRequest, candidates: Candidates, on_hits: OnHits) -> None:
        self._request, self._candidates, self._on_hits = request, candidates, on_hits
        self.verified: list[Verified] = []
        self.unreadable: list[Skipped] = []
        self.left: list[Candidate] = []  # candidates left unverified, as they are in the cloud, or at the deadline
        self.depth = (request.depth or DEFAULT_DEPTH) if request.verifies else 0  # until the judge is there

    def verify(self, judge: Judge, cache: FeatureCache | None, on_progress: OnProgress) -> None:
        """Verify the first candidates, and show the hits after each batch."""
        require_heads(judge.heads, Head.ITM)
        without = self._request.without
        # May read the weights, which takes nothing of the budget.
        encoded = judge.encode_texts([*self._request.texts, *without])
        deadline = time.monotonic() + self._request.budget
        on_progress(0, 0)
        self.depth = judge.default_depth if self._request.depth is None else self._request.depth

        def tell(done: int, total: int) -> None:
            on_progress(len(self.verified) + done, len(self.verified) + total)

        while some := self._candidates.take(self.depth - len(self.verified) - len(self.left)):
            here = [candidate for candidate in some if not candidate.in_cloud]
            verified, unreadable = verify(
                judge,
                encoded,
                here,
                negatives=len(without),
                cache=cache,
                deadline=deadline,
                on_progress=tell,
                on_batch=partial(self.show, some),
            )
            self._add(some, verified, unreadable)
            if time.monotonic() >= deadline:
                break

    def _add(self, some: Sequence[Candidate], verified: Sequence[Verified], unreadable: Sequence[Skipped]) -> None:
        """Add the verified and the unreadable ones of `some`; the others are left."""
        done = {v.candidate.path for v in verified} | {skip.path for skip in unreadable}
        self.verified += verified
        self.unreadable += unreadable
        self.left += [candidate for candidate in some if candidate.path not in done]
        self._candidates.replace_unreadable(skip.path for skip in unreadable)

    def show(
        self,
        some: Sequence[Candidate] = (),
        verified: Sequence[Verified] = (),
        unreadable: Sequence[Skipped] = (),
    ) -> None:
        """Tell `on_hits` the hits as if verification ended with these of `some`."""
        if self._on_hits is quiet:  # nobody waits for them
            return
        ahead = copy(self)
        ahead.verified, ahead.unreadable, ahead.left = [*self.verified], [*self.unreadable], [*self.left]
        ahead._candidates = self._candidates.fork()
        ahead._add(some, verified, unreadable)
        start = self._request.offset
        hits = islice(ahead.ordered(pending=True), start, start + self._request.top)
        self._on_hits(tuple(map(self._candidates.described, hits)))

    def ordered(self, *, pending: bool = False) -> Iterator[Hit]:
        """Yield all hits; with `pending`, a least match keeps what is still to be verified, too.

        A least match, or similarity, leaves out what is ruled out.
        """
        request = self._request
        self.verified.sort(key=lambda v: v.order)
        cuts = request.min_match is not None or request.min_similarity is not None
        kept = [v for v in self.verified if not (cuts and v.ruled_out) and self._is_similar(v.candidate)]
        yield from matching([v.hit for v in kept], request.min_match)
        further = chain.from_iterable(iter(partial(self._candidates.take, 1), []))  # by falling similarity
        rest: Iterator[Candidate] = chain(filter(self._is_similar, self.left), takewhile(self._is_similar, further))
        if request.min_match is not None:
            to_verify = self.depth - len(self.verified) if pending else 0
            rest = (candidate for candidate in islice(rest, to_verify) if not candidate.in_cloud)
        yield from (Hit(one.path, None, one.similarity, verified=False) for one in rest)

    def _is_similar(self, candidate: Candidate) -> bool:
        least = self._request.min_similarity
        return least is None or (candidate.similarity is not None and candidate.similarity >= least)
