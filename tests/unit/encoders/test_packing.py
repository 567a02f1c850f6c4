import numpy as np
import pytest
from numpy.typing import NDArray

from bridgetower.encoders.packing import Bits, pack, unpack

SHAPE = (2, 30, 64)


def floats() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(scale=0.5, size=SHAPE).astype(np.float32)


def bits(width: int) -> Bits:
    whole = floats().view(np.uint32)
    return whole if width == 4 else (whole >> 16).astype(np.uint16)  # as bfloat16


@pytest.mark.parametrize("width", [2, 4])
def test_every_bit_comes_back(width: int) -> None:
    given = bits(width)
    given[0, 0, :8] = [
        0,
        1,
        -1 % 256**width,
        256**width // 2,
        0x7F80 << 8 * (width - 2),
        0x7FC1 << 8 * (width - 2),
        2,
        3,
    ]
    again = unpack(pack(given), SHAPE, width)
    assert again.dtype == given.dtype
    np.testing.assert_array_equal(again, given)


@pytest.mark.parametrize("width", [2, 4])
def test_the_exponents_take_less_than_half_of_their_byte(width: int) -> None:
    given = bits(width)
    assert len(pack(given)) < given.size * (width - 0.5)


def test_another_shape_of_as_many_numbers_is_refused() -> None:
    packed = pack(bits(4))
    with pytest.raises(ValueError, match="no features of"):
        unpack(packed, (2, 64, 30), 4)
    with pytest.raises(ValueError, match="no features of"):
        unpack(packed, SHAPE, 2)


def test_a_stream_of_another_length_is_refused() -> None:
    longer = pack(np.concatenate([bits(4), bits(4)]))
    shorter = pack(bits(4)[:1])
    for packed in (longer, shorter):
        with pytest.raises(ValueError, match="features"):
            unpack(pack(bits(4))[:16] + packed[16:], SHAPE, 4)
