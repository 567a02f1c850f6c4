"""The index on the disk: one writer, many readers. This package knows no model, no picture and no PyTorch.

The catalog is one SQLite file that holds files, images and vectors. Vector files are derived from
the catalog, for recall, and a generation is one set of them. A reader sees one committed state, the writer adds
transactions, and `check` compares catalog and vector files.

Imports the package files alone. Imported by transfer, retrieval, models, queries and the library.
"""
