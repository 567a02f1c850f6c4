"""BridgeTower in PyTorch: tensors in, tensors out; no files, no texts, no pictures.

`config` describes the shape of a network, `layers` holds its parts, and `bridgetower` the whole: two towers, bridges,
task heads. `int8` replaces the matrices by quantised ones.

Imports no other package. Above it: checkpoints, encoders, training.
"""
