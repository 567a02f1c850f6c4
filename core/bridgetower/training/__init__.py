"""Train a BridgeTower: data, the gradients of three losses in chunks and over processes, the loop, a run in its folder.

Imports checkpoints, network, pictures and files, and of the encoders only the choice of a device; knows no index.
"""
