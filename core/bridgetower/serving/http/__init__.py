"""HTTP for a server: routes, safety, limits, thumbnails. All but `config` need the extra `serve`.

    socket -> Connection (slow, half-open and too many clients) -> Measured -> Safety (who may ask)
           -> Defects (one form of error) -> Bodies (how much) -> routes -> RequestQueue -> Engine

`app.create_app` joins them, and `server.HttpServer` runs them on the socket of `config.bind`. The process, its signals
and its log are the caller's.
"""
