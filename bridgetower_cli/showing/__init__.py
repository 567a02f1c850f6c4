"""What becomes of hits besides a list: a page, pictures on the terminal, files opened, copied or linked.

`options` declares the options and checks them before a search; the others do the work, one thing a file.
"""
