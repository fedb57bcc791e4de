"""The values of the vectors, computed again by code that shares nothing with the package (second_backend.py).

Every valid case that holds a cryptographic value is covered; pure encodings are checked by both of their directions,
and by the second implementation under tests/interop.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.vectors import second_backend as second, second_recovery
from tests.vectors.second_answers import ANSWERS, PREFIX, initiate
from tests.vectors.second_ratchets import DoubleRatchet, Json, raw

VECTORS: Final = Path(__file__).parents[2] / "vectors"

HANDSHAKE: Final = 1719


def valid_cases(name: str) -> Iterator[tuple[str, Json]]:
    for group in json.loads((VECTORS / f"{name}.json").read_text())["testGroups"]:
        for test in group["tests"]:
            if test["result"] == "valid":
                yield group["type"], test


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in ANSWERS.items() for kind in kinds])
def test_the_second_backend_computes_the_same_values(name: str, kind: str) -> None:
    cases = [test for each, test in valid_cases(name) if each == kind]
    assert cases != []
    for test in cases:
        assert ANSWERS[name][kind](test["input"]) == test["output"], test["tcId"]


def test_signatures_of_decoded_and_judged_objects_verify_with_the_second_backend() -> None:
    for kind, test in valid_cases("device_list"):
        given = test["input"]
        lists = (
            given["lists"] if kind == "DeviceListChain" else [given["encoded"]] if kind == "DeviceListVerify" else []
        )
        for each in map(bytes.fromhex, lists):
            account_key = each[1 + each[0] : 33 + each[0]]
            assert second.verifies(account_key, second.labelled("E2EE/1 device list", each[:-64]), each[-64:])


def test_exports_that_open_are_what_the_second_backend_seals() -> None:
    cases = [test for kind, test in valid_cases("recovery") if kind == "ExportOpen"]
    assert cases != []
    assert all(second_recovery.opens_to(test["input"], test["output"]) for test in cases)


def test_invalid_plain_signatures_are_refused_by_the_second_backend_too() -> None:
    """Where OpenSSL is strict as well: what it tolerates is section 3.1's list of further rules."""
    document = json.loads((VECTORS / "primitives.json").read_text())
    group = next(each for each in document["testGroups"] if each["type"] == "Ed25519Verify")
    refused = [test["input"] for test in group["tests"] if test["flags"][0] in ("SignedOtherwise", "WrongSigner")]
    assert len(refused) == 2
    for given in refused:
        assert not second.verifies(raw(given, "public_key"), raw(given, "message"), raw(given, "signature"))


def conversations() -> Iterator[Json]:
    for name in ("conversation", "sessions", "limits"):
        yield from (test for kind, test in valid_cases(name) if kind == "Conversation")


def sent_messages() -> Iterator[tuple[Json, Json]]:
    for name in ("conversation", "sessions", "limits", "reception"):
        for _, test in valid_cases(name):
            for step, shown in zip(test["input"]["steps"], test["output"]["steps"], strict=True):
                if step["step"] == "send":
                    yield step, shown


def body_of(envelope: bytes) -> bytes:
    sender_end = 17 + 1 + envelope[17] + 16
    recipient_end = sender_end + 1 + envelope[sender_end] + 16
    return envelope[recipient_end + 1 + 4 + 4 :]


def test_every_sent_envelope_opens_under_the_keys_shown() -> None:
    for step, shown in sent_messages():
        envelope = raw(shown, "envelope")
        body = body_of(envelope)
        message = body[HANDSHAKE + 4 :] if body[1] == 1 else body
        aes_key, commitment = second.joint_key(raw(shown, "pq_message_key"), raw(shown, "message_key"))
        assert (aes_key.hex(), commitment.hex()) == (shown["aes_key"], shown["commitment"])
        payload = int.from_bytes(message[51:53], "big")
        prefix = message[: PREFIX + payload]
        assert prefix[53 + payload : 85 + payload] == commitment
        assert prefix[85 + payload :] == raw(step, "nonce")
        data = raw(shown, "associated_data") + prefix
        plaintext = second.gcm_open(aes_key, raw(step, "nonce"), message[PREFIX + payload :], data)
        assert plaintext == raw(shown, "plaintext")
        assert plaintext.startswith(raw(step, "message_id"))
        content = plaintext.rstrip(b"\0")[:-1]
        assert second.pad(content) == plaintext
        assert content.endswith(raw(step, "body"))


def test_every_turn_of_a_conversation_follows_from_the_keys_before_it() -> None:
    """The keys of a conversation's sends and deliveries, from SK_dr on, by the second backend's Double Ratchet."""
    turned = 0
    for test in conversations():
        turned += follow(test)
    assert turned > 40


def follow(test: Json) -> int:
    """Replay each session of a case with the second backend; return how often a ratchet turned."""
    devices = {each["user_id"]: each for each in test["input"]["devices"]}
    ends: dict[tuple[str, str], DoubleRatchet] = {}
    headers: dict[int, tuple[str, Json]] = {}
    turned = 0
    for number, (step, shown) in enumerate(zip(test["input"]["steps"], test["output"]["steps"], strict=True)):
        session = shown.get("associated_data", "")
        if step["step"] == "start":
            private = next(
                each["private_key"]
                for each in devices[step["peer"]]["signed_prekeys"]
                if each["prekey_id"] == step["signed_prekey_id"]
            )
            public = second.x25519_public(bytes.fromhex(private)).hex()
            common = {
                "root_key": shown["root_key"],
                "their_signed_prekey": public,
                "signed_prekey_private_key": private,
            }
            ends[step["device"], session] = DoubleRatchet({"role": "initiator", **common})
            ends[step["peer"], session] = DoubleRatchet({"role": "responder", **common})
        elif step["step"] == "send":
            sent = ends[step["device"], session].send(step)
            turned += "dh" in sent
            headers[number] = session, sent
            assert {name: sent[name] for name in ("root_key", "chain_key", "message_key")} == {
                name: shown[name] for name in ("root_key", "chain_key", "message_key")
            }
        elif shown.get("outcome") in ("stored", "consumed"):
            session, sent = headers[step["envelope_of"]]
            received = ends[step["device"], session].receive(sent)
            turned += "dh" in received
            assert received["message_key"] == sent["message_key"]
            assert (received["root_key"], received["chain_key"]) == (shown["root_key"], shown["chain_key"])
    return turned


def test_every_session_of_a_conversation_starts_from_what_its_devices_publish() -> None:
    """T, H, SK_dr and the post-quantum root key, from the published bytes and the initiator's private keys."""
    for test in conversations():
        devices = {each["user_id"]: each for each in test["input"]["devices"]}
        published = dict(zip(devices, test["output"]["devices"], strict=True))
        for step, shown in zip(test["input"]["steps"], test["output"]["steps"], strict=True):
            if step["step"] == "start":
                found = initiate(
                    handshake(step, devices[step["device"]], devices[step["peer"]], published[step["peer"]])
                )
                pq_root_key = second.pq_root(0, bytes(32), raw(found, "sk_pq"), b"")[0].hex()
                assert [found[name] for name in ("associated_data", "handshake_hash", "sk_dr")] == [
                    shown[name] for name in ("associated_data", "handshake_hash", "root_key")
                ]
                assert pq_root_key == shown["pq_root_key"]


def handshake(step: Json, ours: Json, theirs: Json, published: Json) -> Json:
    """Return a start step as the input of a PqxdhInitiate case."""
    bundle = second.address(theirs["user_id"], raw(theirs, "device_id")).hex()
    bundle += of_id(published["signed_prekeys"], step["signed_prekey_id"], 0)
    one_time = step.get("one_time_prekey_id")
    bundle += "00" if one_time is None else "01" + of_id(published["one_time_prekeys"], one_time, 0)
    bundle += of_id(published["kem_prekeys"], step["kem_prekey_id"], 1)
    party = {
        "user_id": ours["user_id"],
        "device_id": ours["device_id"],
        "account_key": second.ed25519_public(raw(ours, "account_seed")).hex(),
        "device_signing_key": second.ed25519_public(raw(ours, "device_signing_seed")).hex(),
        "identity_key": second.x25519_public(raw(ours, "identity_private_key")).hex(),
    }
    return {
        **step,
        "initiator": party,
        "identity_private_key": ours["identity_private_key"],
        "device_list": published["device_list"],
        "bundle": bundle,
    }


def of_id(prekeys: list[str], prekey_id: int, at: int) -> str:
    """Return the encoded prekey that has this id `at` bytes after its front."""
    wanted = prekey_id.to_bytes(4, "big")
    return next(each for each in prekeys if bytes.fromhex(each)[at : at + 4] == wanted)
