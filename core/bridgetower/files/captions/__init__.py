"""Captions files: pictures and the texts that belong to them.

Five forms, told apart by their content: JSON lines, CSV and TSV (`tables`), and two of data sets (`datasets`), those of
COCO and of Karpathy. Each form yields rows, a picture with some of its texts and its place in the file; `read` merges
them and looks for the pictures.
"""
