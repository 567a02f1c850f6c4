"""BridgeTower in PyTorch: tensors in, tensors out; no files, no texts, no pictures.

`config` is the shape of a network, `layers` its parts, `bridgetower` the whole: two towers, bridges, task heads.
`int8` replaces its matrices by quantised ones.

Imports no other package. Above it: checkpoints, encoders, training.
"""
