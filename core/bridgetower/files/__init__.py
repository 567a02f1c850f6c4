"""Paths and bytes on the disk; no pixels.

The walk finds picture files below folders and leaves out what `.btignore` excludes; the watch waits for changes. The
other modules read and write single files: only regular ones, whole or not at all, with one form of message.

Imports no other package. All packages but `pictures` and `network` may import it.
"""
