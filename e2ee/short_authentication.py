"""What two devices show while one is linked, and two eyes compare (protocol.md section 15.3).

    bytes  = kdf(L, "E2EE/1 link signs", ""), 64 bytes
    signs  = the first 42 bits, as seven numbers of 6 bits, each of which names a picture
    digits = bytes 8 to 15 as a big-endian integer, modulo 1,000,000, as six digits

Owns: the pictures, and how they follow from L.
Does not know about: screens, who compares.

42 bits (or 20, in digits) are enough because nobody can try: the new device commits to its part before it sees the
other's, and one link is one attempt.
"""

from typing import Final, NamedTuple

from e2ee.primitives import kdf
from e2ee.wire.link import LinkTranscript

SIGNS_LABEL: Final = b"E2EE/1 link signs"

_SIGNS: Final = 7
_BITS: Final = 6


class Picture(NamedTuple):
    """One sign: a character, and its name for those who hear it, or whose screen lacks it."""

    emoji: str
    name: str


class Signs(NamedTuple):
    """What one device shows."""

    pictures: tuple[Picture, ...]
    digits: str


def signs_of(transcript: LinkTranscript) -> Signs:
    """Return the seven pictures and the six digits of a transcript."""
    raw = kdf.kdf(transcript.raw, SIGNS_LABEL)
    number = int.from_bytes(raw[:6], "big") >> 48 - _SIGNS * _BITS
    indices = (number >> _BITS * at & (1 << _BITS) - 1 for at in reversed(range(_SIGNS)))
    digits = f"{int.from_bytes(raw[8:16], 'big') % 1_000_000:06}"
    return Signs(tuple(PICTURES[index] for index in indices), digits)


# One code point each, shown in colour everywhere without a variation selector; no two alike at a glance.
_TABLE: Final = """
🐜 ant|🍎 apple|🥑 avocado|🎈 balloon|🍌 banana|🦇 bat|🐻 bear|🐝 bee
🔔 bell|📘 book|👢 boot|🍞 bread|🧹 broom|🚌 bus|🌵 cactus|🎂 cake
🐫 camel|🥕 carrot|🏰 castle|🐈 cat|🧀 cheese|🍒 cherries|🐔 chicken|🌽 corn
🦀 crab|🐊 crocodile|🥁 drum|🦆 duck|🐘 elephant|🔥 fire|🐟 fish|🐸 frog
🎁 gift|🦒 giraffe|🍇 grapes|🎸 guitar|🔨 hammer|🎩 hat|🦔 hedgehog|🏠 house
🔑 key|🍋 lemon|🦁 lion|🔒 lock|🌙 moon|🍄 mushroom|🐙 octopus|🦉 owl
🐼 panda|🍐 pear|🐧 penguin|🍕 pizza|🚀 rocket|🌹 rose|🐌 snail|⛄ snowman
⭐ star|🍓 strawberry|🌞 sun|🚜 tractor|🌳 tree|🎺 trumpet|🐋 whale|🦓 zebra
"""

PICTURES: Final = tuple(Picture(*entry.split(" ")) for line in _TABLE.strip().splitlines() for entry in line.split("|"))
"""64, by their numbers. Part of the protocol: two releases must show the same."""
