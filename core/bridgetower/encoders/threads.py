"""Choose how many threads compute, all or one: by the network and the number of pictures, never by the load.

Threads of OpenMP wait for each other after every operation. Where an operation takes microseconds, the wait is what is
measured, and beside busy programs it is most of the time: a thread waits until the other is given a core again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local

import torch

from bridgetower.network.config import ModelConfig

_MANY_FROM = 256  # the width from which on several threads are worth it
_PICTURES_FOR_ALL = 8  # so many pictures at once are a large shape in a narrow network, too

_lock = Lock()
_inside = 0  # calls that compute with one thread at this moment
_outside = 1  # the number of threads before the first of them
_here = local()  # `nested`: this thread of Python is inside already


def compute_with_one(config: ModelConfig, pictures: int = 0) -> bool:
    """Whether one thread computes: in a network whose layers are all narrow, unless many pictures pass at once.

    Measured with widths of 128 to 768 on two cores: `docs/decisions/2026-11-28-busy-machines.md`.
    """
    is_narrow = max(config.hidden_size, config.text.hidden_size, config.vision.hidden_size) < _MANY_FROM
    return is_narrow and pictures < _PICTURES_FOR_ALL


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread in here, on this thread of Python; afterwards with as many as before.

    Threads of Python that used PyTorch before keep their number throughout. One that uses it for the first time just
    now takes over the one thread, as PyTorch knows no other way; here that is put right when it leaves. In a block
    within a block nothing changes.
    """
    global _inside, _outside
    if getattr(_here, "nested", False):
        yield
        return
    with _lock:
        own = torch.get_num_threads()
        if not _inside:
            _outside = own
        before = own if own > 1 else _outside
        _inside += 1
        torch.set_num_threads(1)
        _here.nested = True
    try:
        yield
    finally:
        with _lock:
            _here.nested = False
            _inside -= 1
            torch.set_num_threads(before)
