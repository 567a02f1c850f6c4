"""Train a BridgeTower: the three losses, and the trainer that draws false pairs, masks words and resumes.

Imports network, checkpoints, files and pictures. No other package imports it.
"""
