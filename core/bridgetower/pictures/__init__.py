"""Bytes of a picture file -> pixels.

`decode` turns any format that Pillow, or the library of an installed extra, reads into an upright RGB picture, and
`preprocess` turns this into float32 [3, H, W]. A decode worker is a process that does both; the decode pool runs
several workers. `sniff` tells from the content which extra a picture needs; `heif`, `jxl` and `raw` import the
libraries of the extras, and are imported with the first picture of their kind.

Imports no other package, and is the only package that imports PIL and these libraries. Above it: checkpoints, encoders,
transfer, retrieval.
"""
