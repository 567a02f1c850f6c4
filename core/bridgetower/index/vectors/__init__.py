"""Recall: the images whose vectors are nearest to a query.

`protocol` is the seam: a store proposes candidates and can be made from the catalog at any time. FAISS is the default:
`flat` searches exactly, `ivf` and `scalar_codes` among many. A generation is one set of the files of both.

Imports catalog and files, and is the only one that imports faiss. Above it: reader, writer, check and transfer.
"""
