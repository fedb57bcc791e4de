"""Every error that bytes from outside, a human decision or our own stored state can cause.

Owns: the tree below, the stable code, cause and remedy of each error.
Does not know about: any other module. Errors hold strings and numbers only: addresses, ids and counts,
never plaintext, keys or ciphertext.

    E2EEError
    ├─ ProtocolError                  the peer's or the server's bytes are unacceptable
    │  ├─ MalformedMessageError       ├─ UnsupportedVersionError
    │  ├─ AuthenticationError         ├─ InvalidSignatureError
    │  ├─ InvalidPublicKeyError       ├─ DuplicateMessageError
    │  ├─ TooManySkippedError         ├─ KeyEvictedError
    │  ├─ EpochUnknownError           ├─ UnknownPreKeyError
    │  ├─ PreKeyExpiredError          ├─ UnlistedDeviceError
    │  ├─ ReplayedHandshakeError      ├─ WrongRecipientError
    │  ├─ ForbiddenContentError       ├─ DeviceListForkError
    │  ├─ RemovedDeviceError          ├─ LinkMismatchError
    │  └─ LinkExpiredError
    ├─ TrustError                     a human must decide
    │  ├─ AccountKeyChangedError
    │  ├─ ContactNotVerifiedError
    │  ├─ SafetyNumberMismatchError
    │  └─ LinkDeclinedError
    └─ StateError                     our own stored state cannot serve the call
       ├─ SessionNotFoundError        ├─ CorruptStateError
       ├─ WrongPassphraseError        ├─ StoreLockedError
       ├─ StoreUnavailableError       ├─ StoreVersionError
       ├─ AccountNotFoundError        ├─ DeviceListStaleError
       ├─ TooManyDevicesError         └─ WrongRecoveryCodeError

`ValueError` and `TypeError` are bugs of the caller: never caught, never caused by remote input.
Errors of the network live in `transport_adapters.base`.
"""

from typing import ClassVar, final


class E2EEError(Exception):
    """Base of all errors. `code` is stable and may be matched by programs; the text may change."""

    code: ClassVar[str] = "e2ee_error"
    remedy: ClassVar[str] = ""

    def __new__(cls, *_args: object, **_kwargs: object) -> "E2EEError":
        if cls in (E2EEError, ProtocolError, TrustError, StateError):
            raise TypeError(f"{cls.__name__} is abstract: raise one of its subclasses")
        return super().__new__(cls)

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses take other arguments than the text; this restores the text and the attributes, across processes.
        return _restore, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        cause = super().__str__()
        return f"{cause}. {self.remedy}" if self.remedy else cause


class ProtocolError(E2EEError):
    """The bytes of a peer or of the server are unacceptable. Nothing was stored."""


class TrustError(E2EEError):
    """A human must decide before the call can succeed."""


class StateError(E2EEError):
    """Our own stored state cannot serve the call."""


@final
class MalformedMessageError(ProtocolError):
    """Bytes do not decode: wrong length, trailing bytes, non-canonical encoding, value out of range."""

    code = "malformed_message"
    remedy = "Drop it; the sender runs broken or hostile software"

    def __init__(self, what: str) -> None:
        super().__init__(f"Malformed bytes: {what}")


@final
class UnsupportedVersionError(ProtocolError):
    """A version or type number that this release does not know. There is no negotiation."""

    code = "unsupported_version"
    remedy = "Update the older of the two ends"

    def __init__(self, what: str, version: int) -> None:
        super().__init__(f"Unsupported {what}: {version}")
        self.version = version


@final
class AuthenticationError(ProtocolError):
    """A ciphertext, commitment or authenticator is wrong. Carries no detail, so it is no oracle."""

    code = "authentication_failed"
    remedy = "Drop it; if it recurs with one device, start a new session with it"

    def __init__(self) -> None:
        super().__init__("Authentication failed")


@final
class InvalidSignatureError(ProtocolError):
    """An Ed25519 signature does not verify under the key it must verify under."""

    code = "invalid_signature"
    remedy = "Do not use the object; the server or the network may have forged it"

    def __init__(self, what: str) -> None:
        super().__init__(f"Invalid signature on {what}")


@final
class InvalidPublicKeyError(ProtocolError):
    """A public key is not canonical, of low order, or out of range."""

    code = "invalid_public_key"
    remedy = "Do not use the key; no honest implementation produces it"

    def __init__(self, what: str) -> None:
        super().__init__(f"Invalid public key: {what}")


@final
class DuplicateMessageError(ProtocolError):
    """The message was decrypted before; its key is used up."""

    code = "duplicate_message"
    remedy = "Nothing to do; the first copy was delivered"

    def __init__(self) -> None:
        super().__init__("The message was received before")


@final
class ReplayedHandshakeError(ProtocolError):
    """A first message that was accepted before was sent again."""

    code = "replayed_handshake"
    remedy = "Nothing to do; the first copy was processed"

    def __init__(self) -> None:
        super().__init__("The first message of a session was received before")


@final
class TooManySkippedError(ProtocolError):
    """A header asks for more skipped message keys than one message may cost."""

    code = "too_many_skipped"
    remedy = "The session counts as lost; start a new one"

    def __init__(self, gap: int, limit: int) -> None:
        super().__init__(f"The message skips {gap} others, at most {limit} are allowed")
        self.gap = gap
        self.limit = limit


@final
class KeyEvictedError(ProtocolError):
    """The key of a late message was dropped, for age or for number."""

    code = "key_evicted"
    remedy = "Ask its sender to send the message again"

    def __init__(self) -> None:
        super().__init__("The key of this late message was dropped")


@final
class EpochUnknownError(ProtocolError):
    """A message names a post-quantum epoch that this session has not reached."""

    code = "epoch_unknown"
    remedy = "If it recurs, the store was restored from an old copy: start a new session"

    def __init__(self, epoch: int) -> None:
        super().__init__(f"Post-quantum epoch {epoch} is unknown to this session")
        self.epoch = epoch


@final
class UnknownPreKeyError(ProtocolError):
    """A first message names a prekey that this device does not hold (any more)."""

    code = "unknown_prekey"
    remedy = "The sender must claim a fresh bundle"

    def __init__(self, prekey_id: int) -> None:
        super().__init__(f"Prekey {prekey_id} is not held by this device")
        self.prekey_id = prekey_id


@final
class PreKeyExpiredError(ProtocolError):
    """A bundle holds a prekey past its expiry."""

    code = "prekey_expired"
    remedy = "Claim again later; the device publishes fresh prekeys when it is next online"

    def __init__(self, prekey_id: int) -> None:
        super().__init__(f"Prekey {prekey_id} has expired")
        self.prekey_id = prekey_id


@final
class UnlistedDeviceError(ProtocolError):
    """A device is not in the signed device list of its user, or is listed there with other keys."""

    code = "unlisted_device"
    remedy = "Do not talk to it; only the user's own signed list adds devices"

    def __init__(self, address: str) -> None:
        super().__init__(f"Device {address} is not in its user's signed list with these keys")
        self.address = address


@final
class WrongRecipientError(ProtocolError):
    """An envelope is addressed to another device."""

    code = "wrong_recipient"
    remedy = "Drop it; the server delivered it to the wrong device"

    def __init__(self, address: str) -> None:
        super().__init__(f"The envelope is addressed to {address}")
        self.address = address


@final
class ForbiddenContentError(ProtocolError):
    """A content of a kind that its sender may not send to us."""

    code = "forbidden_content"
    remedy = "Drop it; only our own devices may send it, or only for their own user"

    def __init__(self, kind: int) -> None:
        super().__init__(f"Content of kind {kind} is not accepted from this sender")
        self.kind = kind


@final
class DeviceListForkError(ProtocolError):
    """Two device lists of one user contradict each other: the server or an account key misbehaves."""

    code = "device_list_fork"
    remedy = "Sending to this user stops if the pinned key signed both; compare safety numbers over another channel"

    def __init__(self, user_id: str) -> None:
        super().__init__(f"The device list of {user_id} has forked")
        self.user_id = user_id


@final
class RemovedDeviceError(ProtocolError):
    """A message of a device that left its user's list more than 45 days ago."""

    code = "removed_device"
    remedy = "Drop it; nothing that the device sent while it was listed can still be under way"

    def __init__(self, address: str) -> None:
        super().__init__(f"Device {address} left the device list of its user more than 45 days ago")
        self.address = address


@final
class LinkMismatchError(ProtocolError):
    """What came while two devices were being linked does not belong together: it was swapped, or is of another link."""

    code = "link_mismatch"
    remedy = "Nothing was taken over; begin anew, and do not go on if it recurs"

    def __init__(self, what: str) -> None:
        super().__init__(f"The link was refused: {what}")


@final
class LinkExpiredError(ProtocolError):
    """More than ten minutes went by while two devices were being linked, or the link was used before."""

    code = "link_expired"
    remedy = "Nothing was taken over; begin anew with a new code"

    def __init__(self) -> None:
        super().__init__("The link has expired")


@final
class AccountKeyChangedError(TrustError):
    """A contact's account key differs from the pinned one.

    Once the new key is known, both safety numbers are there, 60 digits each; before, they are empty.
    """

    code = "account_key_changed"
    remedy = "Compare the new safety number with them, then accept the change or stay with the old key"

    def __init__(self, user_id: str, old_safety_number: str = "", new_safety_number: str = "") -> None:
        super().__init__(f"The account key of {user_id} has changed")
        self.user_id = user_id
        self.old_safety_number = old_safety_number
        self.new_safety_number = new_safety_number


@final
class ContactNotVerifiedError(TrustError):
    """The policy sends to verified contacts only, and this one is not."""

    code = "contact_not_verified"
    remedy = "Compare safety numbers with them over another channel, then record it"

    def __init__(self, user_id: str) -> None:
        super().__init__(f"The contact {user_id} is not verified")
        self.user_id = user_id


@final
class SafetyNumberMismatchError(TrustError):
    """What was compared is not the number of the keys that we know: somebody stands between, or a key has changed."""

    code = "safety_number_mismatch"
    remedy = "Do not trust this contact; compare again, and look for a newer key"

    def __init__(self, user_id: str) -> None:
        super().__init__(f"The safety number with {user_id} is another one")
        self.user_id = user_id


@final
class LinkDeclinedError(TrustError):
    """A person says that the two devices show different signs, or does not say that they show the same."""

    code = "link_declined"
    remedy = "Nothing was taken over. If the signs did differ, somebody stands between: do not go on in this network"

    def __init__(self) -> None:
        super().__init__("The two devices were not confirmed to show the same")


@final
class SessionNotFoundError(StateError):
    """There is no session that could send to, or decrypt from, this device."""

    code = "session_not_found"
    remedy = "Claim a bundle for the device and hand it in"

    def __init__(self, address: str) -> None:
        super().__init__(f"No session with {address}")
        self.address = address


@final
class DeviceListStaleError(StateError):
    """The newest known device list of a user is missing or outdated; it must be fetched first."""

    code = "device_list_stale"
    remedy = "Fetch the user's device list and hand it in"

    def __init__(self, user_id: str) -> None:
        super().__init__(f"The device list of {user_id} must be fetched")
        self.user_id = user_id


@final
class TooManyDevicesError(StateError):
    """The account has as many devices as it may have."""

    code = "too_many_devices"
    remedy = "Retire one that is not used any more, then try again"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The account has {limit} devices already")
        self.limit = limit


@final
class AccountNotFoundError(StateError):
    """The store holds no account yet."""

    code = "account_not_found"
    remedy = "Create one first (command line: e2ee init)"

    def __init__(self) -> None:
        super().__init__("The store holds no account")


@final
class CorruptStateError(StateError):
    """Stored bytes do not authenticate or do not decode."""

    code = "corrupt_state"
    remedy = "Restore the file from a copy, or start a new device; do not continue on it"

    def __init__(self, what: str) -> None:
        super().__init__(f"Stored state is corrupt: {what}")


@final
class WrongPassphraseError(StateError):
    """The passphrase (or the 32-byte key) does not open the store."""

    code = "wrong_passphrase"
    remedy = "Try again with the right one; nothing was changed"

    def __init__(self) -> None:
        super().__init__("The passphrase does not open the store")


@final
class WrongRecoveryCodeError(StateError):
    """The recovery code does not open the export: it belongs to another one, or the file was changed."""

    code = "wrong_recovery_code"
    remedy = "Try the code that was written down with this file"

    def __init__(self) -> None:
        super().__init__("The recovery code does not open the export")


@final
class StoreLockedError(StateError):
    """Another process has the store open for writing."""

    code = "store_locked"
    remedy = "Close the other program, or wait for it"

    def __init__(self) -> None:
        super().__init__("The store is in use by another process")


@final
class StoreUnavailableError(StateError):
    """The file system refused: disk full, read-only, no such directory, I/O error."""

    code = "store_unavailable"
    remedy = "Free space or fix permissions and try again; what was committed is safe"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The store cannot be used: {reason}")


@final
class StoreVersionError(StateError):
    """The store was written by a release that this one cannot read."""

    code = "store_version"
    remedy = "Install the release that wrote it, or a newer one"

    def __init__(self, found: int, supported: int) -> None:
        super().__init__(f"The store has schema version {found}, this release reads up to {supported}")
        self.found = found
        self.supported = supported


def _restore(kind: type[E2EEError], args: tuple[object, ...], attributes: dict[str, object]) -> E2EEError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
