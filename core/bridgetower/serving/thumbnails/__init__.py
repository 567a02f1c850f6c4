"""Small pictures for an HTTP server: kept on disk by `store`, made in the guarded processes of `pool`."""
