"""Curation of picture collections: which captions are false of their pictures (`audit`), and how to mend them.

A pair is a picture and one of its captions. Imports the rest of `retrieval`, which does not import it. Above it: models
and library.
"""
