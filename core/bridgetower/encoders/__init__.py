"""The seam for computing.

`protocol` says what an encoder, a judge and an image engine do, with numpy alone; `torch_encoder` does it in PyTorch,
and `local_engine` decodes and encodes in this process. `runtime` chooses the device and the precision.

Imports checkpoints, network, pictures and files. Retrieval may import `protocol` alone; models and library may all.
"""
