"""The tasks: they join an index and an encoder through the two seams.

Folders -> index (`indexing`), text -> candidates -> verified hits (`candidates`, `matching`, `search`), text with a
mask -> words (`fill`), captions -> recall@k (`evaluation`).

Imports index, pictures, files and `encoders.protocol` alone, so that no task loads PyTorch. Above it: models, library.
"""
