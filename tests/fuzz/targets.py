"""All fuzz targets by name.

Owns: the list. A target is a function of bytes that raises if its property is broken, and knows nothing of a fuzzer.
Does not know about: how inputs are found (campaign.py) and kept (corpus.py).
"""

from collections.abc import Callable
from typing import Final

from tests.fuzz.conversations import CONVERSATIONS
from tests.fuzz.decoders import DECODERS
from tests.fuzz.device_lists import device_list_chain

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    **DECODERS,
    "device_list_chain": device_list_chain,
    **CONVERSATIONS,
}
