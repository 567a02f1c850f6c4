"""Search pictures for a text, a picture or a vector: recall by ITC, then re-rank by ITM.

    query -> vector -> index -> candidates by similarity -> the first `depth` of them through the full encoder
                                                         -> verified, by matching logit; then the rest, unverified

The two scores are never mixed. How many candidates are verified does not depend on how many are shown, so the first
five results are always the first five of the first fifteen. A picture whose files are gone is no candidate: the next
one takes its place.

`request` holds a query and its limits, `recall` makes its vector, `ranking` verifies and orders, `pages` joins them.
Imported by `queries`, and by the interfaces for `SearchRequest`.
"""
