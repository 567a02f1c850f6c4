"""A warm process that answers many requests to one index: those of the command line, HTTP, and tools of agents.

    request -> queue -> engine -> Library, whose model batches the work of requests that run together

`local` carries the requests of the command line on a Unix socket, `http` those of programs, `mcp` those of agents on
stdio. All use the public interface, as the command line does. `local.client`, `http.config` and `mcp.process` are the
parts that the command line imports: they need no extra, and the first two neither NumPy nor PyTorch.
"""
