"""The post-quantum ratchet once more, on the second backend, after the words of section 7.3.

Owns: accepted steps, and the refusals that a conversation of the vectors holds.
Does not know about: the e2ee package, limits.
"""

import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from tests.vectors import second_backend as second

Json = dict[str, Any]
HOUR, DAY = 3_600_000, 86_400_000


def raw(fields: Json, name: str) -> bytes:
    return bytes.fromhex(fields[name])


class Refusal(Exception):
    """The error code of a refused message."""


class PqEnd:
    """One end."""

    def __init__(self, role: str, secret: bytes, now: int) -> None:
        self.is_initiator = role == "initiator"
        self.receiving: dict[int, tuple[bytes, int]] = {}
        self.closed: dict[int, int] = {}
        self.skipped: dict[tuple[int, int], bytes] = {}
        self.root_key, self.e, self.healing = bytes(32), 0, False
        self.sending, self.sent_in_chain = self.take_epoch(secret, b""), 0
        self.e = 1
        self.enter("propose-idle" if self.is_initiator else "waiting", now)

    def take_epoch(self, secret: bytes, bind: bytes) -> bytes:
        """Derive an epoch; return the sending chain."""
        output = second.pq_root(self.e, self.root_key, secret, bind)
        self.root_key, to_responder, to_initiator, self.authentication_key = output
        sending, receiving = (to_responder, to_initiator) if self.is_initiator else (to_initiator, to_responder)
        self.receiving[self.e] = receiving, 0
        return sending

    def enter(self, phase: str, now: int, *, fresh: bool = False, asked: bool = False) -> None:
        self.phase, self.entered, self.sent, self.received, self.attached = phase, now, 0, 0, 0
        self.fresh, self.asked, self.again = fresh, asked, False

    def complete(self, phase: str, sending: bytes, now: int) -> None:
        self.healing = self.healing and not self.fresh
        self.sending, self.sent_in_chain, self.e = sending, 0, self.e + 1
        self.enter(phase, now)

    def state(self) -> Json:
        return {
            "phase": self.phase,
            "e": self.e,
            "healing": int(self.healing),
            "closed_chains": len(self.closed),
            "root_key": self.root_key.hex(),
            "authentication_key": self.authentication_key.hex(),
            "receiving_chain_key": self.receiving[max(self.receiving)][0].hex(),
        }

    def send(self, step: Json) -> Json:
        now = step["time"]
        due = self.sent + self.received >= 50 or now - self.entered >= DAY or self.asked or self.healing
        if self.phase == "propose-idle" and due:
            self.seed = raw(step, "seed")
            self.ek = MLKEM768PrivateKey.from_seed_bytes(self.seed).public_key().public_bytes_raw()
            self.enter("offering", now, fresh=self.healing, asked=self.asked)
        self.sent += 1
        kind, payload = self.payload(now)
        epoch, index = self.e - 1, self.sent_in_chain
        self.sending, key = second.pq_chain_step(self.sending, index)
        self.sent_in_chain += 1
        header = {"epoch": epoch, "index": index, "payload_type": kind, "payload": payload.hex()}
        keys = {"chain_key": self.sending.hex(), "message_key": key.hex()}
        shown: Json = {"step": "send", **header, **keys, "phase": self.phase}
        if "seed" in step:
            rejected = MLKEM768PrivateKey.from_seed_bytes(self.seed).decapsulate(b"\x5a" * 1088)
            shown["rejected_secret"] = rejected.hex()
        return shown

    def payload(self, now: int) -> tuple[int, bytes]:
        if self.phase == "waiting" and self.healing:
            return 3, b""
        by_count = self.sent in (1, 8, 16, 32, 64, 128) or self.sent % 256 == 0
        attach = by_count or now - self.attached >= HOUR or self.asked or self.again or self.healing
        if self.phase not in ("offering", "answering") or not attach:
            return 0, b""
        self.attached, self.again = now, False
        if self.phase == "answering":
            return 2, self.answer
        return 1, self.ek + second.pq_mac(self.authentication_key, "E2EE/1 PQ ek", self.e, self.ek)

    def receive(self, step: Json, message: Json) -> Json:
        epoch, index, now = message["epoch"], message["index"], step["time"]
        key = self.take_key(epoch, index)
        self.received += 1
        for each in [each for each in self.receiving if each < epoch and each not in self.closed]:
            self.closed[each] = now
        if self.phase == "answering" and epoch == self.e:
            self.complete("propose-idle", self.next_sending, now)
        if message["payload_type"] and epoch + 1 == self.e:
            self.judge(message["payload_type"], raw(message, "payload"), step)
        counted = {"message_key": key.hex(), "skipped_keys": len(self.skipped)}
        return {"step": "receive", **counted, **self.state()}

    def take_key(self, epoch: int, index: int) -> bytes:
        if epoch not in self.receiving:
            if (epoch, index) not in self.skipped:
                raise Refusal("key_evicted")
            return self.skipped.pop((epoch, index))
        chain_key, at = self.receiving[epoch]
        while at <= index:
            chain_key, self.skipped[epoch, at] = second.pq_chain_step(chain_key, at)
            at += 1
        self.receiving[epoch] = chain_key, at
        return self.skipped.pop((epoch, index))

    def judge(self, kind: int, payload: bytes, step: Json) -> None:
        body, tag = payload[:-32], payload[-32:]
        if kind == 3:
            self.asked = True
        elif kind == 1 and self.phase == "waiting":
            assert tag == second.pq_mac(self.authentication_key, "E2EE/1 PQ ek", self.e, body)
            ct = raw(step, "ciphertext")
            self.next_sending = self.take_epoch(raw(step, "shared_secret"), bind(body, ct))
            self.answer = ct + second.pq_mac(self.authentication_key, "E2EE/1 PQ ct", self.e, ct)
            self.enter("answering", step["time"], fresh=self.healing)
        elif kind == 1:
            assert self.phase == "answering"
            self.again = True
        else:
            assert self.phase == "offering"
            secret = MLKEM768PrivateKey.from_seed_bytes(self.seed).decapsulate(body)
            sending = self.take_epoch(secret, bind(self.ek, body))
            assert tag == second.pq_mac(self.authentication_key, "E2EE/1 PQ ct", self.e, body)
            self.complete("waiting", sending, step["time"])

    def heal(self) -> Json:
        self.healing, self.fresh = True, False
        return {"step": "heal", **self.state()}

    def forget(self, step: Json) -> Json:
        for each in [each for each, at in self.closed.items() if step["time"] - at > 7 * DAY]:
            del self.closed[each], self.receiving[each]
        return {"step": "forget", **self.state()}


def bind(ek: bytes, ct: bytes) -> bytes:
    return hashlib.sha256(ek).digest() + hashlib.sha256(ct).digest()


def pq_ratchet(given: Json) -> Json:
    end = PqEnd(given["role"], raw(given, "sk_pq"), given["time"])
    first = {
        "root_key": end.root_key.hex(),
        "sending_chain_key": end.sending.hex(),
        "receiving_chain_key": end.receiving[0][0].hex(),
        "authentication_key": end.authentication_key.hex(),
    }
    return {**first, "steps": [_step(end, each, each) for each in given["steps"]]}


def pq_conversation(given: Json) -> Json:
    ends = {role: PqEnd(role, raw(given, "sk_pq"), given["time"]) for role in ("initiator", "responder")}
    outcomes: list[Json] = []
    for step in given["steps"]:
        message = outcomes[step["message_of"]] if step["step"] == "deliver" else {}
        outcomes.append(_step(ends[step["end"]], step, message))
    return {"steps": outcomes}


def _step(end: PqEnd, step: Json, message: Json) -> Json:
    if step["step"] == "send":
        return end.send(step)
    if step["step"] == "heal":
        return end.heal()
    if step["step"] == "forget":
        return end.forget(step)
    try:
        return end.receive(step, message)
    except Refusal as refusal:
        return {"step": "refused", "error": str(refusal)}
