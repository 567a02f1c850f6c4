"""The interface to the network, and its implementation in PyTorch.

`protocol` defines an encoder, a judge and an image engine, and imports only numpy. `torch_encoder` implements the first
two in PyTorch; `local_engine` decodes and encodes in this process. `runtime` chooses device and precision.

Imports checkpoints, network, pictures and files. Retrieval may import only `protocol`; models and library may import
all.
"""
