"""What the flags of test cases mean: the notes of the vector files.

Owns: every flag, once for all files.
Does not know about: which cases carry it.
"""

from typing import Final

FLAGS: Final[dict[str, tuple[str, str]]] = {
    "Normal": ("BASIC", "An ordinary case."),
    "Boundary": ("EDGE_CASE", "A value or a length at the very end of what is allowed."),
    "BeyondLimit": ("DENIAL_OF_SERVICE", "A value, a length or a count just beyond what is allowed."),
    "Truncated": ("MISSING_STEP", "The bytes end too early. A decoder that pads or reads on is wrong."),
    "TrailingBytes": ("MALLEABILITY", "Bytes follow after the last field. One value has one encoding."),
    "NonCanonical": ("MALLEABILITY", "A second encoding of a value that has one already."),
    "UnknownVersion": (
        "MISSING_STEP",
        "A version or type that does not exist. There is no negotiation.",
    ),
    "InvalidText": ("MISSING_STEP", "A character that the identifier or the text form does not allow."),
    "UnknownKind": ("EDGE_CASE", "A kind of content that is not defined. It decodes, and nothing is acted on."),
    "NothingFollows": ("EDGE_CASE", "A known kind of content that is accepted and not shown. Its session advances."),
    "NonCanonicalKey": ("MALLEABILITY", "An X25519 key with bit 255 set or with u not below p."),
    "LowOrderKey": ("WEAK_PARAMS", "A point of low order: the exchange would give zero whatever the private key is."),
    "WeakSignature": (
        "SIGNATURE_MALLEABILITY",
        "Verifies with a lenient Ed25519 verifier, for any message or a second time.",
    ),
    "MixedOrder": (
        "SIGNATURE_MALLEABILITY",
        "A key or R with a component of small order, where verifiers disagree. The equation without cofactor decides.",
    ),
    "ModifiedSignature": ("AUTH_BYPASS", "A signature with a changed bit or of the wrong length."),
    "WrongSigner": ("AUTH_BYPASS", "A valid signature of a key that has no say here."),
    "WrongKind": ("AUTH_BYPASS", "A message of one kind in the place of another."),
    "WrongLink": ("REPLAY", "A message of another link."),
    "NotCommitted": ("AUTH_BYPASS", "What is revealed is not what was committed to: it was chosen after the answer."),
    "WrongLabel": ("AUTH_BYPASS", "A valid signature of the right key over another kind of object."),
    "SignedOtherwise": ("AUTH_BYPASS", "A valid signature over other fields than those presented."),
    "InvalidKemKey": ("WEAK_PARAMS", "An ML-KEM encapsulation key with a coefficient of q or more."),
    "ImplicitRejection": ("EDGE_CASE", "A ciphertext that nobody encapsulated: another secret, and no error."),
    "DeviceOrder": ("MALLEABILITY", "Devices of a list that are not in strictly ascending order of their ids."),
    "ListStart": ("MODIFIED_PARAMETER", "seq and previous hash that do not fit together, or seq 0."),
    "ListGap": ("EDGE_CASE", "A newer list whose predecessors were not seen: accepted on its signature."),
    "ListFork": (
        "AUTH_BYPASS",
        "Two lists, both signed, that fit into no chain, or give a device other keys.",
    ),
    "AccountKeyChanged": ("AUTH_BYPASS", "A list under another account key than the one seen first: a human decides."),
    "Expired": ("AUTH_BYPASS", "A prekey at or after its time of expiry."),
    "UnlistedDevice": ("AUTH_BYPASS", "A device that its user's signed list does not hold, or holds with other keys."),
    "NoOneTimePreKey": ("BASIC", "A handshake without a one-time prekey."),
    "LastResort": ("BASIC", "A handshake with the last-resort KEM prekey."),
    "UnknownPreKey": ("MISSING_STEP", "A prekey that the device does not hold."),
    "WrongPreKeyKind": ("AUTH_BYPASS", "The id of a prekey in the place of another kind."),
    "WrongIdentity": (
        "AUTH_BYPASS",
        "Another party than the one the handshake was made with (unknown key share).",
    ),
    "ModifiedHandshake": ("AUTH_BYPASS", "A changed field of the handshake header. T differs, so nothing decrypts."),
    "ModifiedHeader": ("AUTH_BYPASS", "A changed field of a message's header: all of it is associated data."),
    "ModifiedCommitment": ("AUTH_BYPASS", "A changed commitment, over a ciphertext that would open."),
    "ModifiedCiphertext": ("AUTH_BYPASS", "A changed nonce, ciphertext or tag."),
    "WrongKey": ("AUTH_BYPASS", "The right message under another key, or bound to another session."),
    "KeyNotCommitted": ("AUTH_BYPASS", "A ciphertext that opens under a key which its commitment does not name."),
    "ShortTag": ("AUTH_BYPASS", "A tag that was cut short."),
    "Skipped": ("BASIC", "Messages that were overtaken or lost."),
    "SkipLimit": ("DENIAL_OF_SERVICE", "A header that asks for more skipped keys than one message may cost."),
    "Turn": ("BASIC", "The Double Ratchet turns."),
    "ForeignRatchetKey": ("AUTH_BYPASS", "An unknown ratchet key before our next message: nobody honest has one yet."),
    "UnknownEpoch": ("AUTH_BYPASS", "A post-quantum epoch that the session does not hold."),
    "Epoch": ("BASIC", "A post-quantum epoch is proposed, answered and completed."),
    "Healing": ("BASIC", "An end asks for a new post-quantum epoch at once."),
    "LatePayload": ("EDGE_CASE", "A copy of a payload whose epoch is over: it is ignored, its message is delivered."),
    "Evicted": ("EDGE_CASE", "A message whose chain or key was dropped for age."),
    "ModifiedPayload": (
        "AUTH_BYPASS",
        "A post-quantum payload whose mac does not fit, in a message that is authentic.",
    ),
    "OtherProposal": ("AUTH_BYPASS", "A second encapsulation key for an epoch, in a message that is authentic."),
    "PayloadOutOfPlace": ("AUTH_BYPASS", "A post-quantum payload that no honest peer sends in this phase."),
    "Replay": ("REPLAY", "A message or handshake that was accepted before."),
    "Padding": ("MALLEABILITY", "A filler or a padded length that no sender produces."),
    "PayloadLength": ("MODIFIED_PARAMETER", "A post-quantum payload whose length does not fit its type."),
    "MalformedContent": ("MISSING_STEP", "A plaintext that authenticates and is no valid content."),
    "WrongRecipient": ("AUTH_BYPASS", "An envelope for another device."),
    "SimultaneousStart": ("EDGE_CASE", "Both ends start a session before they hear of each other."),
    "SessionLimit": (
        "DENIAL_OF_SERVICE",
        "More sessions with one device than are kept, or older ones. The limits are this package's; others may differ.",
    ),
    "SkippedKeyLimit": (
        "DENIAL_OF_SERVICE",
        "More skipped keys than are kept, or older ones. The limits are this package's; others may differ.",
    ),
    "SessionOrder": ("EDGE_CASE", "Which of several sessions sends: the one with the highest (created, T)."),
    "Tampered": ("AUTH_BYPASS", "A byte was changed on the way; the unchanged envelope comes later and is accepted."),
}
"""bugType and description by flag."""
