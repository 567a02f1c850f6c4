"""Name of a model -> files -> network.

A checkpoint is a folder in the layout of Hugging Face: configuration, weights, tokenizer, settings of preprocessing.
This package finds it by name, on the disk or the Hub, reads it strictly, loads, saves and converts it. Pickles are
read without running code.

Imports files, network and `pictures.preprocess`. Above it: encoders and models.
"""
