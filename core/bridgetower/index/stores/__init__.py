"""Databases behind recall: PostgreSQL with pgvector, and Milvus.

    address       the URL of a store, without a password
    naming        the name of a table, and which index it was made for
    table         the seam: a table of vectors in a database
    external      the `RecallStore` over such a table: what is written when, how hard a search looks
    differences   compare a table with the manifest
    postgres      a `VectorTable` in PostgreSQL
    milvus        a `VectorTable` in Milvus; milvus_requests, the connection, and how long requests wait
    named         the `RecallStore` that the manifest of an index names

Imports catalog and vectors; only `postgres` and `milvus` import drivers, when they connect. Imported by the rest of
index, and by the library.
"""
