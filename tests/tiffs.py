"""TIFF files written by hand, without tifffile, of one uncompressed strip or of strips that are given."""

import struct

import numpy as np

_SHORT, _LONG, _IFD8 = 3, 4, 18
_FORMS = {_SHORT: "H", _LONG: "I", _IFD8: "Q"}


def tiff(strips: list[bytes], tags: dict[int, list[int]], order: str = "<", *, big: bool = False) -> bytes:
    """A TIFF or BigTIFF file; `tags` are the values by number, without those of the strips."""
    pointer, count = ("Q", "Q") if big else ("I", "H")
    words, room = ("HHQ", 8) if big else ("HHI", 4)
    fields = {259: [1], **tags, 273: [0] * len(strips), 279: [len(strip) for strip in strips]}
    fields.setdefault(278, [-(-tags[257][0] // len(strips))])
    start = 16 if big else 8
    after = (
        start
        + struct.calcsize(order + count + pointer)
        + len(fields) * struct.calcsize(order + words)
        + len(fields) * room
    )
    while True:  # twice, as the strips lie behind the values
        entries, values = b"", b""
        for tag, numbers in sorted(fields.items()):
            kind = _LONG if tag in (273, 279, 34665) or max(numbers) > 0xFFFF else _SHORT
            kind = _IFD8 if big and tag == 34665 else kind
            packed = struct.pack(f"{order}{len(numbers)}{_FORMS[kind]}", *numbers)
            if len(packed) > room:
                packed, values = (
                    struct.pack(order + pointer, after + len(values)),
                    values + packed + bytes(len(packed) % 2),
                )
            entries += struct.pack(order + words, tag, kind, len(numbers)) + packed.ljust(room, b"\0")
        places = [after + len(values) + sum(map(len, strips[:n])) for n in range(len(strips))]
        if fields[273] == places:
            break
        fields[273] = places
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start)
    directory = struct.pack(order + count, len(fields)) + entries + bytes(struct.calcsize(order + pointer))
    return head + directory + values + b"".join(strips)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples, [H, W, channels], each sample from its highest bit on, each row filled to a byte."""
    flat = values.reshape(len(values), -1, 1).astype(np.uint64)
    single = (flat >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(single.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()
