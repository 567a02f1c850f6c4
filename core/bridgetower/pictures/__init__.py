"""Bytes of a picture file -> pixels.

`decode` makes an upright RGB picture of any format that Pillow reads, `preprocess` float32 [3, H, W] of that. A
decode worker does both in a process of its own, and the decode pool keeps several workers busy.

Imports no other package, and is the only one that imports PIL. Above it: checkpoints, encoders, transfer, retrieval.
"""
