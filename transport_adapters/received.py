"""What a relay's frames are to a client: the values of base.py.

Owns: that translation.
Does not know about: connections.
"""

from e2ee.wire.identifiers import EnvelopeId
from transport_adapters.base import Connected, Delivery, Refused
from transport_adapters.frames import Deliver, Error, Welcome


def connected(welcome: Welcome) -> Connected:
    """Translate the answer to `hello`."""
    return Connected(
        epoch=welcome.epoch,
        head_seq=welcome.head_seq,
        accepted_counter=welcome.accepted_counter,
        acked_epoch=welcome.acked_epoch,
        acked_seq=welcome.acked_seq,
        server_time=welcome.server_time,
        settled_through=welcome.settled_through,
        dropped_through=welcome.dropped_through,
    )


def delivered(deliver: Deliver) -> Delivery:
    """Translate a row of the mailbox."""
    position = deliver.epoch, deliver.seq
    return Delivery(*position, deliver.envelope, deliver.sender, deliver.envelope_id, deliver.dropped)


def refused(error: Error, envelope_id: EnvelopeId) -> Refused:
    """Translate the refusal of this envelope."""
    stale = error.user_id, error.seq, error.device_ids or ()
    return Refused(envelope_id, error.code.value, error.detail, error.retry_after, *stale)
