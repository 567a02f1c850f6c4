"""A warm process that answers many requests of the command line to one index.

    request -> queue -> engine -> Library, whose model batches the work of requests that run together

`local` carries the requests on a Unix socket. All use the public interface, as the command line does. `local.client` is
the part that the command line imports: it needs neither NumPy nor PyTorch.
"""
