"""BridgeTower in PyTorch: tensors in, tensors out; no files, no texts, no pictures.

`config` describes a network and `shapes` lists its parameters, both without PyTorch. `layers` holds the parts of a
network, `towers` the two towers, `features` the tensors that pass between the parts, and `bridgetower` the whole, with
bridges and task heads. `int8` replaces the matrices by quantised ones.

Imports no other package. Above it: checkpoints, encoders, training.
"""
