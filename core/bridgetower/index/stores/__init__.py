"""Databases behind recall: PostgreSQL with pgvector, and Milvus.

address     the URL of a store, without a password
table       the seam: a table of vectors in a database
postgres    a `VectorTable` in PostgreSQL
milvus      a `VectorTable` in Milvus
"""
