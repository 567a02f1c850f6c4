"""Export an index as files for other programs, import such files, and import vectors of other models.

An export is a folder of npy and JSON lines. `export_reader` checks one, `import_index` adds it to an index, and
`path_map` finds its paths on this machine. External vectors come from another model, one for each path.
`placing` copies or links files into a folder.

Imports index, files and pictures. Above it: the library.
"""
