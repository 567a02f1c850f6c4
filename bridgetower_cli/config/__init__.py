"""Settings that last: `values` parses them, `keys` declares each once, `file` reads the file that keeps them.

A setting is searched in the options of a command, then in the environment, then in the file. `places` finds the folder
of an index, or of a library by its name; `edit` changes the file; `completion` has the words for the shell. Imports no
command, and nothing heavy.
"""
