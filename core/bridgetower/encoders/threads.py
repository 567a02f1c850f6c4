"""Choose whether one thread computes or all: by the network and the number of pictures, never by the load.

Threads of OpenMP wait for each other after every operation. If operations take microseconds, most of the time is
waiting, above all on a busy machine, where a thread waits until the others get a core again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local

import torch

from bridgetower.network.config import ModelConfig

_WIDE_FROM = 256  # width from which several threads are faster than one
_LARGE_BATCH = 8  # number of pictures from which they are faster in a narrow network, too

_lock = Lock()
_active_blocks = 0  # blocks of `one_thread` that are active now
_usual_threads = 1  # PyTorch threads before the first of them
_python_thread = local()  # `nested`: this Python thread is in a block already


def compute_with_one(config: ModelConfig, pictures: int = 0) -> bool:
    """Return whether one thread computes: if all layers of the network are narrow and the pictures few.

    Measured with widths of 128 to 768 on two cores: `docs/decisions/2026-11-28-busy-machines.md`.
    """
    is_narrow = max(config.hidden_size, config.text.hidden_size, config.vision.hidden_size) < _WIDE_FROM
    return is_narrow and pictures < _LARGE_BATCH


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread in this block, on this Python thread, and restore the number afterwards.

    Other Python threads that have used PyTorch keep their number. A Python thread that uses PyTorch for the first time
    now inherits the number one, which PyTorch cannot avoid; it is corrected when that thread leaves a block of its own.
    A nested block changes nothing.
    """
    global _active_blocks, _usual_threads
    if getattr(_python_thread, "nested", False):
        yield
        return
    with _lock:
        own = torch.get_num_threads()
        if not _active_blocks:
            _usual_threads = own
        before = own if own > 1 else _usual_threads
        _active_blocks += 1
        torch.set_num_threads(1)
        _python_thread.nested = True
    try:
        yield
    finally:
        with _lock:
            _python_thread.nested = False
            _active_blocks -= 1
            torch.set_num_threads(before)
