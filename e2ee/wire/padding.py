"""Padding of plaintexts, so that a server learns the size of a message only roughly.

Owns: the padded lengths and the filler.
Does not know about: what is padded.
"""

from e2ee.errors import MalformedMessageError
from e2ee.limits import MIN_PADDED


def padme(length: int) -> int:
    """Round up by the Padmé rule (PURBs, PETS 2019, section 4): at most 12 % more, O(log log n) bits leak."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    spare = exponent - exponent.bit_length()
    mask = (1 << spare) - 1
    return (length + mask) & ~mask


def padded_length(length: int) -> int:
    """Length in bytes of a padded content of `length` bytes: max(256, Padmé(length + 1))."""
    return max(MIN_PADDED, padme(length + 1))


def pad(content: bytes) -> bytes:
    """Append 0x80 and zeros up to the padded length."""
    length = MIN_PADDED if len(content) < MIN_PADDED else padded_length(len(content))
    return (content + b"\x80").ljust(length, b"\0")


def unpad(padded: bytes) -> bytes:
    """Remove the padding. Runs after authentication, so it need not be constant-time.

    Raises:
        MalformedMessageError: another filler, or a length that `pad` does not produce.
    """
    content, marker, filler = padded.rpartition(b"\x80")
    if not marker or filler.strip(b"\0"):
        raise MalformedMessageError("padding")
    length = len(content)
    if len(padded) != (MIN_PADDED if length < MIN_PADDED else padded_length(length)):
        raise MalformedMessageError("padded length")
    return content
