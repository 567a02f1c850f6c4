"""A copy of the catalog that runs keep, and its return to the place of a catalog that is damaged.

Imports catalog and files. Only `index.check` and the writer may import it.
"""
