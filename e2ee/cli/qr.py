"""QR codes on the terminal and in files.

Owns: drawing a text as a code, reading one from a picture. The libraries come with the extra `qr`.
Does not know about: what the text says.
"""

import io
from pathlib import Path
from typing import Final

from e2ee.cli.settings import UsageError

_SUFFIXES: Final = {".png": "png", ".svg": "svg"}
_PIXELS: Final = 6
"""Side of one dot in a picture."""
_MAX_PIXELS: Final = 40_000_000
"""Of a picture to read: a phone's photograph, and no decompression bomb."""


def on_terminal(text: str) -> str:
    """Draw a code with characters; half a line for each row of dots."""
    import segno

    drawn = io.StringIO()
    segno.make(text, micro=False, error="m").terminal(out=drawn, compact=True)
    return drawn.getvalue().rstrip("\n")


def to_file(text: str, path: Path) -> None:
    """Write a code as PNG or SVG, by the suffix.

    Raises:
        UsageError: another suffix, or the file cannot be written.
    """
    import segno

    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path.name}: a picture's name ends in {' or '.join(_SUFFIXES)}")
    try:
        segno.make(text, micro=False, error="m").save(str(path), kind=kind, scale=_PIXELS)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def from_file(path: Path) -> str:
    """Return the text of the one QR code in a picture.

    Raises:
        UsageError: no picture, or not exactly one code in it.
    """
    import zxingcpp
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise UsageError(f"{path}: a picture of more than {_MAX_PIXELS // 1_000_000} megapixels")
            codes = zxingcpp.read_barcodes(
                picture.convert("L"), formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
            )
    except UnidentifiedImageError:
        raise UsageError(f"{path} is not a picture") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is damaged'}") from None
    if len(codes) != 1:
        raise UsageError(f"{path} shows {len(codes)} QR codes, not one")
    return codes[0].text
