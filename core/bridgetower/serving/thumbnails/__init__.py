"""Small pictures: made in the guarded processes of `pool`, kept on disk for a server by `store`, and of any files by
`of_files`."""
