"""Recall: the images whose vectors are nearest to a query.

`protocol` is the seam: a store proposes candidates and can be made from the catalog at any time. `faiss` is the
default.
`catalog_vectors` reads the vectors from the catalog, and `float16` says how they are stored and scored.

Imports catalog and files; only `faiss` imports faiss. Imported by the rest of index; `protocol` also by retrieval and
the library.
"""
