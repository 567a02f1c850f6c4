"""Paths and bytes on the disk; no pixels.

The walk finds picture files below folders, except those that `.btignore` excludes; the watch waits for changes. The
other modules read and write single files: they accept regular files only, write atomically, and word errors alike.

Imports no other package. All packages but `pictures` and `network` may import it.
"""
