"""Train a BridgeTower: three losses, and a trainer that draws false pairs, masks words and can resume.

Imports network and files. No other package imports it.
"""
