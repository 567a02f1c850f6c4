"""The copy of the catalog that each run renews, and its use to replace a damaged catalog.

Imports catalog and files. Only `index.check` and the writer may import this package.
"""
