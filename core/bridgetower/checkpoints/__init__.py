"""Name of a model -> files -> network.

A checkpoint is a folder in the layout of Hugging Face: configuration, weights, tokenizer, numbers of preprocessing. It
is found by name, on the disk or the Hub, read strictly, loaded, saved and converted. Pickles run no code.

Imports files, network and `pictures.preprocess`. Above it: encoders, and training for what it saves.
"""
