"""The catalog of an index: one SQLite file, `manifest.sqlite`, with all data that cannot be made again cheaply.

`schema` defines the tables and the checksums of their rows. The reader is a snapshot of one committed state; the writer
adds transactions. Errors of SQLite, and commits that its log has lost, are raised as errors that say what to do next.

Imports the package files alone. Only this package and `recovery` import sqlite3. All of `index` and transfer may import
this package.
"""
