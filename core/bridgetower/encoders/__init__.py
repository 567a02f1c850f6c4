"""The interface to the network, and its implementation in PyTorch.

`protocol` defines an encoder, a judge and an image engine; `checked` checks what other implementations return.
`torch_encoder` implements encoder and judge: texts by `text_tower` in NumPy, pictures and pairs by `torch_network` in
PyTorch, which is imported only then; `packing` stores features. `local_engine` decodes in worker processes and encodes
in this one. `runtime` chooses device and precision.

Imports checkpoints, network, pictures and files. Retrieval may import only `protocol` and `checked`; models may import
all.
"""
