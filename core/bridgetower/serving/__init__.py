"""A warm process that answers many requests to one index: those of the command line, and HTTP.

    request -> queue -> engine -> Library, whose model batches the work of requests that run together

`local` carries the requests of the command line on a Unix socket, `http` those of programs. All use the public
interface, as the command line does. `local.client` and `http.config` are the parts that the command line imports: they
need neither NumPy, PyTorch nor the extra `serve`.
"""
