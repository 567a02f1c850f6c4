"""Models, ready for use from Python: an encoder makes vectors, a judge verifies and fills.

`Model` finds a checkpoint at once and reads its weights when they are first needed. `model_choice` chooses the model
that made an index, or the one for a new index.

Imports all packages but transfer and training. Above it: queries and library.
"""
