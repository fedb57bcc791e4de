"""An identifier of one kind where another kind is wanted."""

from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, EnvelopeId, MessageId, UserId


def conversation_as_user(conversation: ConversationId, device_id: DeviceId) -> DeviceAddress:
    return DeviceAddress(conversation, device_id)  # error: arg-type


def text_as_user(device_id: DeviceId) -> DeviceAddress:
    return DeviceAddress("alice", device_id)  # error: arg-type


def user_and_device_swapped(user_id: UserId, device_id: DeviceId) -> DeviceAddress:
    return DeviceAddress(device_id, user_id)  # error: arg-type


def envelope_id_as_message_id(envelope_id: EnvelopeId) -> MessageId:
    return envelope_id  # error: return-value
