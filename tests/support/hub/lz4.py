"""Unpacks LZ4 frames, in plain Python: Xet packs chunks so, and tests want no package for it."""

from __future__ import annotations

_MAGIC = bytes.fromhex("04224d18")
_STORED = 1 << 31  # in a block's size: the block is not packed


def unpack(frame: bytes) -> bytes:
    """The content of one frame. ``ValueError`` when it is no LZ4 frame; checksums are not looked at."""
    if frame[:4] != _MAGIC:
        raise ValueError("no LZ4 frame")
    flags = frame[4]
    at = 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    out = bytearray()
    while size := int.from_bytes(frame[at : at + 4], "little"):
        length = size & ~_STORED
        block = frame[at + 4 : at + 4 + length]
        if size & _STORED:
            out += block
        else:
            _unpack_block(block, out)
        at += 4 + length + (4 if flags & 16 else 0)
    return bytes(out)


def _unpack_block(block: bytes, out: bytearray) -> None:
    """Append a block's content to ``out``, which holds what came before it."""
    at = 0
    while True:
        token = block[at]
        count, at = _length(block, at + 1, token >> 4)
        out += block[at : at + count]
        at += count
        if at >= len(block):
            return
        back = int.from_bytes(block[at : at + 2], "little")
        count, at = _length(block, at + 2, token & 15)
        _repeat(out, back, count + 4)


def _length(block: bytes, at: int, start: int) -> tuple[int, int]:
    """A length that begins with the four bits ``start``, and where what follows it begins."""
    if start < 15:
        return start, at
    while block[at] == 255:
        start += 255
        at += 1
    return start + block[at], at + 1


def _repeat(out: bytearray, back: int, count: int) -> None:
    """Append ``count`` bytes from ``back`` bytes before the end; they may overlap what is being written."""
    pattern = bytes(out[-back:])[:count]
    whole, rest = divmod(count, len(pattern))
    out += pattern * whole + pattern[:rest]
