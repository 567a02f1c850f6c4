"""The command line asks a running server on a Unix socket.

`place` says where the socket of an index is, `wire` what goes over it, `listener` is the side of the server and
`client` that of the command line. The client reads the files that the user names and sends their bytes.
"""
