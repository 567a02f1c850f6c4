"""An `ImageEngine` whose pictures are encoded by actors on a Ray cluster.

`batches` decides what is submitted and when, and knows no Ray. `ray_engine` is the engine. It starts a process,
`driver`, which alone imports Ray; `actor` runs on the machines of the cluster.
`bridgetower.models` makes the engine; nothing else imports this package.
"""
