"""All bounds in one place.

Owns: every number that limits what a peer, a server or time may cost us.
Does not know about: who enforces it. Sizes are bytes, times are milliseconds unless the name says otherwise.
Changing a specification constant breaks other implementations; an implementation constant is ours alone.
"""

from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

# --- Specification constants (docs/protocol.md, section 11) -------------------------------------------------

MAX_ENVELOPE: Final = 96 * 1024
"""Largest encoded envelope."""

MAX_APPLICATION_DATA: Final = 64 * 1024
"""Largest application payload of one message."""

MAX_BODY: Final = MAX_APPLICATION_DATA + 1024
"""Largest body of a Content."""

MIN_PADDED: Final = 256
"""Smallest padded plaintext: short messages are indistinguishable by size."""

MAX_USER_ID: Final = 128
MAX_CONVERSATION_ID: Final = 128
MAX_DEVICES: Final = 10
"""Devices in one device list."""

MAX_TTL_SECONDS: Final = 28 * 24 * 3600
MAX_TIMESTAMP: Final = (1 << 63) - 1
"""Timestamps and counters of 2^63 or more are a decode error, so every language can hold them."""

DEVICE_LIST_LIFETIME_MS: Final = 30 * DAY_MS
PREKEY_LIFETIME_MS: Final = 90 * DAY_MS
PREKEY_ROTATION_MS: Final = 7 * DAY_MS
MAX_RETRY_IDS: Final = 256

PQ_PROPOSAL_MESSAGES: Final = 50
"""Messages sent and received after which the side whose turn it is proposes the next post-quantum epoch."""

PQ_PROPOSAL_AGE_MS: Final = DAY_MS
PQ_ATTACH_AGE_MS: Final = HOUR_MS
"""A post-quantum payload is attached again after this time, whatever the count of messages."""

PQ_ANSWER_MS: Final = 5 * SECOND_MS
"""A post-quantum payload is answered by an empty content when nothing else was sent for this long."""
MAX_RECEIPT_IDS: Final = 256

MAX_CALL_DATA: Final = 3_840
"""Application data of one call signal. It fits in lane 0 (bodies of 8 KiB) even in the first message to a device, with
the longest device list and a post-quantum payload beside it."""

LINK_LIFETIME_MS: Final = 10 * MINUTE_MS
"""How long two devices may take to be linked."""

MAX_LINK_MESSAGE: Final = 8 * 1024
"""Largest message of a link."""

MAX_LINK_BODY: Final = 60 * 1024
"""Body of a link content: with all that is around it, a Content stays below 64 KiB."""

MAX_HISTORY_CHUNK: Final = 128 * 1024
"""Plaintext of one chunk of an exported history; a message takes less than 70,000 bytes of it."""

CALL_TTL_SECONDS: Final = 60
"""Time to live of what is said about a call; as long does it ring."""

CALL_CLOCK_SKEW_MS: Final = 5 * MINUTE_MS
"""How far two clocks may be apart before a call that arrives in time is taken for one that was held back."""

MAX_EXPORTED_ACCOUNT: Final = 64 * 1024 * 1024
"""Sealed account of an export, contacts included: read into memory as one."""

# --- Implementation constants --------------------------------------------------------------------------------

MEET_OWN_DEVICE_MS: Final = MINUTE_MS
"""After this time without a session with another device of ours one is started, though there is nothing to say yet. The
device that let it in is faster, and one session is enough."""

SHORTEST_MEETING_PAUSE_MS: Final = 5 * SECOND_MS
"""Between two tries to start one; the pauses double up to an hour."""

LIST_QUERY_MS: Final = HOUR_MS
"""How often at most the server is asked before sending because a list has expired, or links before it lack."""

LIST_RENEWAL_MS: Final = 10 * DAY_MS
LIST_RENEWAL_SPREAD_MS: Final = 4 * DAY_MS
"""A list of our own is signed again so long before it expires, or up to the spread later: not by all at once."""

MAX_SKIP: Final = 1_000
"""Most message keys one message may skip in each of: old chain, new chain, post-quantum chain."""

MAX_SKIP_WITH_DROPPED: Final = 10_000
"""Upper end of MAX_SKIP when the server reported rows of this sender as expired undelivered."""

MAX_SKIPPED_KEYS: Final = 2_000
"""Skipped keys kept per session, for each of the two ratchets."""

SKIPPED_KEY_LIFETIME_MS: Final = 7 * DAY_MS
SKIPPED_KEY_RECEIVES: Final = 2_000
"""A skipped key dies after this many further receives on its session."""

MAX_EVICTED_MARKS: Final = 4_000
"""Evicted positions remembered per session and ratchet, so that a late message is told from a duplicate."""

MAX_CLOSED_RATCHET_KEYS: Final = 64
MAX_CLOSED_EPOCHS: Final = 64
CLOSED_EPOCH_LIFETIME_MS: Final = 7 * DAY_MS
CLOSED_EPOCH_RECEIVES: Final = 2_000
"""Receiving chains of post-quantum epochs that the peer has left: how many are kept for late messages, and how long."""

PQ_STALLED_SENT: Final = 32
PQ_STALLED_RECEIVED: Final = 500
"""An epoch that got no further over so many messages each way is reported: somebody may be dropping its payloads."""

MAX_SESSIONS_PER_DEVICE: Final = 20
UNANSWERED_SESSION_MS: Final = 30 * DAY_MS
"""A session that was never answered is not used for sending after this time."""

LATE_ENVELOPE_MS: Final = 45 * DAY_MS
"""Everything a late envelope may need lives this long: outbox 14 days, TTL 28 days, slack."""

MAX_UNREADABLE: Final = 10_000
"""Unreadable envelopes remembered; beyond it the oldest go, because strangers can cause them."""

OUTBOX_LIFETIME_MS: Final = 14 * DAY_MS
MAX_SENT_CONTENTS: Final = 1_000
"""Messages whose contents the sent log keeps, so that they can be sent again; looked at every 64 envelopes."""

SENT_CONTENT_MS: Final = 14 * DAY_MS
MAX_RESENDS: Final = 3
"""How often one message is sent again to one device, so that a retry request is no amplifier."""

FRESH_SESSION_MS: Final = HOUR_MS
"""At most one session per device is started for healing in this time, and at most one reset after a rollback made."""

RETRY_REQUEST_MS: Final = MINUTE_MS
"""At most one retry request per device is sent in this time."""

MAX_RETRY_ASKS: Final = 3
"""How often we ask for one unreadable envelope, each time on a newer session."""

ONE_TIME_PREKEY_BATCH: Final = 100
ONE_TIME_PREKEY_LOW: Final = 25
MAX_ONE_TIME_PREKEYS: Final = 200
"""One-time prekeys of one kind that a device may have published and unclaimed."""

MAX_CLAIMED_ONE_TIME_PREKEYS: Final = 2_000
"""Private halves kept of one-time prekeys that were claimed but not used yet."""

MAX_REPLAY_ENTRIES: Final = 100_000
"""First messages remembered per last-resort KEM prekey; beyond it the key refuses new handshakes."""

MAX_TRUST_DECISIONS: Final = 128
"""Lines in the history of one contact. Beyond it those go that change nothing, and what other devices of ours tell is
entered only if it counts; what a person decides on this device always is."""

MAX_CLOSED_KEYS_TOLD: Final = 64
"""Closed account keys of one contact, beyond which no more are believed by the word of another device of ours."""

MAX_CONTACTS_TOLD: Final = 10_000
"""Contacts here, beyond which none is added by the word of another device of ours."""

MAX_PENDING_TRUST: Final = 100
PENDING_TRUST_MS: Final = 30 * DAY_MS
"""First messages under a changed account key: how many are kept as ciphertext per contact, and how long."""
