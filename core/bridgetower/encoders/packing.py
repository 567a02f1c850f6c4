"""Pack arrays of 16-bit or 32-bit floats into fewer bytes, without loss.

The numbers of one tensor have similar sizes, so their exponents repeat and their other bits do not. Each number is
rotated left by one bit, so that its eight exponent bits (the same in bfloat16 and float32) are its highest byte. That
byte of all numbers is compressed with Huffman codes alone, since there are no repeated strings to find; the other bytes
(mantissa and sign) are stored as they are.

    header     the shape, three uint32; bytes a number, uint32; all little-endian
    raw        the lower bytes of all numbers: every lowest byte, then every second byte, ...
    exponents  the highest bytes of all numbers, as a zlib stream
"""

import struct
import zlib

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.unsignedinteger]  # uint16 or uint32: the bits of floats

_HEADER = struct.Struct("<4I")


def pack(bits: Bits) -> bytes:
    """Pack the bits of floats, an array of three dimensions."""
    count, width = bits.size, bits.itemsize
    rotated = (bits << 1) | (bits >> (8 * width - 1))
    planes = np.ascontiguousarray(rotated).view(np.uint8).reshape(count, width)
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    exponents = compressor.compress(planes[:, -1].tobytes()) + compressor.flush()
    raw = [planes[:, place].tobytes() for place in range(width - 1)]
    return b"".join([_HEADER.pack(*bits.shape, width), *raw, exponents])


def unpack(packed: bytes, shape: tuple[int, int, int], width: int) -> Bits:
    """Return the bits of floats of `width` bytes, [`shape`]. Raises ValueError for another shape, and if damaged."""
    count = shape[0] * shape[1] * shape[2]
    raw_end = _HEADER.size + (width - 1) * count
    if packed[: _HEADER.size] != _HEADER.pack(*shape, width) or len(packed) < raw_end:
        raise ValueError(f"no features of {list(shape)} numbers of {width} bytes")
    stream = zlib.decompressobj()
    try:
        exponents = stream.decompress(memoryview(packed)[raw_end:], count)
        whole = len(exponents) == count and not stream.decompress(stream.unconsumed_tail, 1) and stream.eof
    except zlib.error as error:
        raise ValueError(f"damaged features: {error}") from error
    if not whole or stream.unused_data:
        raise ValueError("damaged features: of another length than their shape")
    planes = np.empty((count, width), np.uint8)
    planes[:, :-1] = np.frombuffer(packed, np.uint8, (width - 1) * count, _HEADER.size).reshape(width - 1, count).T
    planes[:, -1] = np.frombuffer(exponents, np.uint8)
    rotated = planes.view(f"u{width}").reshape(shape)
    bits: Bits = np.bitwise_or(rotated >> 1, rotated << (8 * width - 1))
    return bits
