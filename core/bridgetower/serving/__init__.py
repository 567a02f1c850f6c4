"""A warm process that answers many requests to one index: for the command line on a Unix socket, for others by HTTP.

    request -> queue -> engine -> Library, whose model batches the work of requests that run together

`engine` and what is below it serve both; `local` and `http` are the two forms of a request. All use the public
interface, as the command line does. `local.client` is the part that the command line imports: it needs neither NumPy
nor PyTorch.
"""
