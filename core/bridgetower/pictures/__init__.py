"""Bytes of a picture file -> pixels.

`decode` turns any format that Pillow reads into an upright RGB picture, and `preprocess` turns this into float32
[3, H, W]. A decode worker is a process that does both; the decode pool runs several workers.

Imports no other package, and is the only package that imports PIL. Above it: checkpoints, encoders, transfer,
retrieval.
"""
