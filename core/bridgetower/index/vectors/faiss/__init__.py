"""Recall with FAISS, from files beside the manifest: exact for few images, lists and codes for many.

generation     the files of one publication
flat           exact search
ivf            lists of vectors, searched some at a time
scalar_codes   a byte a number, to score what the lists propose
build          write and tune the files of a generation
search         search them
check          compare them with the manifest
store          the `RecallStore`
"""
