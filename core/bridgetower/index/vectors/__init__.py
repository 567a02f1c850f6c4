"""Recall: the images whose vectors are nearest to a query.

`protocol` is the seam: a store proposes candidates and can be made from the catalog at any time. FAISS is the default:
`flat` searches few images exactly, `ivf` and `scalar_codes` many approximately. A generation is one published set of
vector files.

Imports catalog and files; only this package imports faiss. Imported by the rest of index; `protocol` also by
retrieval and the library.
"""
