"""The checksum CRC-32C, in which records of TensorFlow files are kept."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_LANE = 512  # bytes


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli; RFC 3720, appendix B.4) of some bytes.

    Long data is cut into lanes of 512 bytes which go through the table together; the sums of
    the lanes are then joined, since the sum of A and B is that of A moved on by the length of
    B, exclusive-or that of B.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    codes = np.frombuffer(data, np.uint8)
    table = _table()
    lanes = len(codes) // _LANE
    total = 0xFFFFFFFF
    if lanes > 1:
        sums = np.zeros(lanes, np.uint32)
        columns = codes[: lanes * _LANE].reshape(lanes, _LANE).T
        for column in np.ascontiguousarray(columns):
            sums = table[(sums ^ column) & 0xFF] ^ (sums >> np.uint32(8))
        one, two, three, four = (row.tolist() for row in _moved())
        for lane in sums.tolist():
            total = (
                one[total & 0xFF]
                ^ two[total >> 8 & 0xFF]
                ^ three[total >> 16 & 0xFF]
                ^ four[total >> 24]
                ^ lane
            )
        codes = codes[lanes * _LANE :]
    steps = table.tolist()
    for code in codes.tolist():
        total = steps[(total ^ code) & 0xFF] ^ (total >> 8)
    return total ^ 0xFFFFFFFF


@cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> np.uint32(1) ^ np.uint32(_POLYNOMIAL), table >> 1)
        table = table.astype(np.uint32)
    return table


@cache
def _moved() -> NDArray[np.uint32]:
    """What one lane of zero bytes makes of each byte of a sum."""
    sums = np.stack([np.arange(256, dtype=np.uint32) << np.uint32(8 * i) for i in range(4)])
    for _ in range(_LANE):
        sums = _table()[sums & 0xFF] ^ (sums >> np.uint32(8))
    return sums
