"""The interface to the network, and its implementation in PyTorch.

`protocol` defines an encoder, a judge and an image engine; `checked` checks what other implementations return.
`torch_encoder` implements encoder and judge in PyTorch; `local_engine` decodes in worker processes and encodes in this
one. `runtime` chooses device and precision.

Imports checkpoints, network, pictures and files. Retrieval may import only `protocol` and `checked`; models may import
all.
"""
