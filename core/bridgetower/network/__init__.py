"""BridgeTower in PyTorch: tensors in, tensors out; no files, no texts, no pictures.

`config` describes a network and `shapes` lists its parameters, both without PyTorch. `layers` holds the parts of a
network, and `bridgetower` the whole: two towers, bridges, task heads. `int8` replaces the matrices by quantised ones.

Imports no other package. Above it: checkpoints, encoders, training.
"""
