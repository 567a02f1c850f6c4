"""The index on the disk: one writer, many readers. It knows no model, no picture and no PyTorch.

The catalog is one SQLite file that holds files, images and vectors. Vector files are derived from it, for recall, and
a generation is one set of them. The reader sees one committed state; the writer adds to it; `check` compares both.

Imports files alone. Above it: transfer, retrieval, library.
"""
