"""Tell whether two pictures are one: the same view, encoded again, scaled or cropped.

A picture becomes a grid, uint8 [64, 64, 3] of the whole picture, in a worker process (`worker`, `grids`). Two grids are
laid over each other as well as they can be, and then no part of them may differ (`compare`).

For retrieval.
"""
