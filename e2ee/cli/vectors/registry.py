"""Which vector files there are.

Owns: the list.
Does not know about: their cases (cases/).
"""

from typing import Final

from e2ee.cli.vectors.model import VectorFile
from e2ee.cli.vectors.operations import (
    aead,
    codec,
    content,
    device_list,
    double_ratchet,
    envelope,
    linking,
    message,
    padding,
    pq_ratchet,
    pqxdh,
    prekey,
    primitives,
    recovery,
    safety_number,
    scripts,
)

FILES: Final[tuple[VectorFile, ...]] = (
    codec.FILE,
    primitives.FILE,
    device_list.FILE,
    prekey.FILE,
    pqxdh.FILE,
    double_ratchet.FILE,
    pq_ratchet.FILE,
    aead.FILE,
    message.FILE,
    padding.FILE,
    content.FILE,
    envelope.FILE,
    safety_number.FILE,
    linking.FILE,
    recovery.FILE,
    scripts.CONVERSATION_FILE,
    scripts.SESSIONS_FILE,
    scripts.RECEPTION_FILE,
    scripts.LIMITS_FILE,
)
"""In the order in which an implementer needs them."""
