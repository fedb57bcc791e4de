"""The Double Ratchet once more, on the second backend: one end, from a vector's input to its output.

Owns: accepted steps of section 7.2.
Does not know about: the e2ee package, limits and refusals.
"""

from typing import Any

from tests.vectors import second_backend as second

Json = dict[str, Any]


def raw(fields: Json, name: str) -> bytes:
    return bytes.fromhex(fields[name])


class DoubleRatchet:
    """Section 7.2, without limits and refusals: accepted steps only."""

    def __init__(self, given: Json) -> None:
        self.root_key = raw(given, "root_key")
        self.private = raw(given, "signed_prekey_private_key") if given["role"] == "responder" else None
        self.theirs = raw(given, "their_signed_prekey") if given["role"] == "initiator" else b""
        self.sending: tuple[bytes, int] | None = None
        self.receiving: tuple[bytes, bytes, int] | None = None
        self.previous = 0
        self.skipped: dict[tuple[bytes, int], bytes] = {}

    def step(self, step: Json) -> Json:
        return self.send(step) if step["step"] == "send" else self.receive(step)

    def send(self, step: Json) -> Json:
        turn = {}
        if self.sending is None:
            self.private = raw(step, "ratchet_private_key")
            secret = second.x25519(self.private, self.theirs)
            self.root_key, chain_key = second.root_step(self.root_key, secret)
            self.sending, turn = (chain_key, 0), {"dh": secret.hex()}
        assert self.private is not None
        index = self.sending[1]
        chain_key, message_key = second.chain_step(self.sending[0])
        self.sending = chain_key, index + 1
        header = {"ratchet_key": second.x25519_public(self.private).hex(), "previous_chain_length": self.previous}
        return {"step": "send", **turn, **header, "index": index, **self._keys(chain_key, message_key)}

    def receive(self, step: Json) -> Json:
        key, index, turn = raw(step, "ratchet_key"), step["index"], {}
        message_key = self.skipped.pop((key, index), None)
        if message_key is None:
            if self.receiving is None or self.receiving[0] != key:
                turn = self._turn(key, step["previous_chain_length"])
            self._skip_to(index)
            assert self.receiving is not None
            chain_key, message_key = second.chain_step(self.receiving[1])
            self.receiving = key, chain_key, index + 1
        assert self.receiving is not None
        keys = self._keys(self.receiving[1], message_key)
        return {"step": "receive", **turn, **keys, "skipped_keys": len(self.skipped)}

    def _turn(self, key: bytes, previous: int) -> Json:
        assert self.private is not None
        if self.receiving is not None:
            self._skip_to(previous)
        secret = second.x25519(self.private, key)
        self.root_key, chain_key = second.root_step(self.root_key, secret)
        self.previous = self.sending[1] if self.sending else 0
        self.private, self.sending, self.theirs, self.receiving = None, None, key, (key, chain_key, 0)
        return {"dh": secret.hex()}

    def _skip_to(self, index: int) -> None:
        assert self.receiving is not None
        key, chain_key, at = self.receiving
        while at < index:
            chain_key, self.skipped[key, at] = second.chain_step(chain_key)
            at += 1
        self.receiving = key, chain_key, at

    def _keys(self, chain_key: bytes, message_key: bytes) -> Json:
        return {"root_key": self.root_key.hex(), "chain_key": chain_key.hex(), "message_key": message_key.hex()}


def double_ratchet(given: Json) -> Json:
    ratchet = DoubleRatchet(given)
    return {"steps": [ratchet.step(each) for each in given["steps"]]}
