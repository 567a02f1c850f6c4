"""The catalog of an index: one SQLite file, `manifest.sqlite`, that holds all that cannot be made again cheaply.

`schema` has the tables and the sums of their rows. The reader is a snapshot of one committed state; the writer adds
transactions. What SQLite refuses, and what its log has lost, comes out as an error that says what to do next.

Imports files alone, and only it and `recovery` import sqlite3. All of `index` and transfer may import it.
"""
