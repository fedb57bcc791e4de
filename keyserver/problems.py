"""Every way the key service refuses a request: a status, a stable code, a sentence (RFC 9457).

Owns: the list of refusals.
Does not know about: HTTP libraries (routes/guarded.py writes the response), SQL.

`code` is stable and may be matched by programs. `detail` never holds keys, tokens or what somebody else may not know.
"""

from typing import ClassVar, final


class Problem(Exception):
    """A refused request. `members` are additional fields of the response, `retry_after` seconds."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    detail: ClassVar[str] = "The server failed; nothing was changed."

    def __init__(
        self, detail: str | None = None, *, retry_after: int | None = None, members: dict[str, int | str] | None = None
    ) -> None:
        super().__init__(detail or self.detail)
        self.retry_after = retry_after
        self.members = members or {}


@final
class InternalProblem(Problem):
    """A bug or a broken database. Says nothing about it; the log does."""


@final
class NotFoundProblem(Problem):
    status, code, detail = 404, "not_found", "There is no such resource."


@final
class MethodNotAllowedProblem(Problem):
    status, code, detail = 405, "method_not_allowed", "The resource does not know this method."


@final
class InvalidRequestProblem(Problem):
    status, code, detail = 422, "invalid_request", "The request is not of the described form."


@final
class UnacceptableBytesProblem(Problem):
    """Wire bytes that do not decode or verify. The code is that of the error in `e2ee.errors`."""

    status = 422

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # one class for all of them, since only the code differs


@final
class TooLargeProblem(Problem):
    status, code = 413, "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes.", members={"limit": limit})


@final
class BodyTimeoutProblem(Problem):
    status, code, detail = 408, "body_timeout", "The request's body did not come in time."


@final
class OriginRefusedProblem(Problem):
    status, code, detail = 403, "origin_refused", "Scripts of this page may not ask this server."


@final
class PlaintextRefusedProblem(Problem):
    status, code = 403, "plaintext_refused"
    detail = "This server is reached over https only. What was in the request may have been read by others."


@final
class RateLimitedProblem(Problem):
    status, code = 429, "rate_limited"

    def __init__(self, wait_ms: int) -> None:
        super().__init__("Too many requests of this kind.", retry_after=max(1, -(-wait_ms // 1000)))


@final
class NotReadyProblem(Problem):
    """The database does not answer. Whether the request was done is not known: all of it, or nothing."""

    status, code, detail = 503, "not_ready", "The database does not answer. Repeat the request later."
    RETRY_AFTER: ClassVar[int] = 2

    def __init__(self) -> None:
        super().__init__(retry_after=self.RETRY_AFTER)


@final
class HostKeysUnavailableProblem(Problem):
    status, code = 503, "host_keys_unavailable"
    detail = "The host application's keys cannot be fetched, so its tokens cannot be verified now."

    def __init__(self) -> None:
        super().__init__(retry_after=10)


# --- Who asks ------------------------------------------------------------------------------------------------


class UnauthorizedProblem(Problem):
    """The request carries no token that counts."""

    status = 401


@final
class TokenMissingProblem(UnauthorizedProblem):
    code, detail = "token_missing", "The request needs 'Authorization: Bearer ...'."


@final
class TokenInvalidProblem(UnauthorizedProblem):
    """The token is not one that this server takes. Raised by the host's own verification, too."""

    code, detail = "token_invalid", "The token is not valid here."


@final
class TokenExpiredProblem(UnauthorizedProblem):
    """The token was good until it expired. Raised by the host's own verification, too."""

    code, detail = "token_expired", "The token has expired."


@final
class TokenRevokedProblem(UnauthorizedProblem):
    code, detail = "token_revoked", "The user was logged out after this token was issued: log in with the host again."


@final
class DeviceRevokedProblem(UnauthorizedProblem):
    code, detail = "device_revoked", "The device left its user's device list; it can only return under a new id."


@final
class AssertionRefusedProblem(UnauthorizedProblem):
    code, detail = "assertion_refused", "The login assertion is not this device's for this server and login."


@final
class LoginEndedProblem(UnauthorizedProblem):
    code, detail = "login_ended", "The login has ended or never was: show the host application's token again."


@final
class AssertionReplayedProblem(Problem):
    status, code = 409, "assertion_replayed"

    def __init__(self, highest_counter: int) -> None:
        detail = "The counter of a login assertion must be above every earlier one."
        super().__init__(detail, members={"highest_counter": highest_counter})


@final
class ContactRefusedProblem(Problem):
    status, code, detail = 403, "contact_refused", "This user is out of reach for you."


# --- Devices and device lists --------------------------------------------------------------------------------


@final
class DeviceExistsProblem(Problem):
    status, code, detail = 409, "device_exists", "The device id is registered with other keys, which it keeps for ever."


@final
class DeviceRetiredProblem(Problem):
    status, code, detail = 409, "device_retired", "The device id belonged to a device that left; ids never return."


@final
class DeviceNotRegisteredProblem(Problem):
    status, code, detail = 409, "device_not_registered", "Register the device first."


@final
class TooManyDevicesProblem(Problem):
    status, code, detail = 409, "too_many_devices", "Too many devices of this user wait to be listed."


@final
class DeviceListConflictProblem(Problem):
    status, code = 409, "device_list_conflict"

    def __init__(self, seq: int, list_hash: bytes) -> None:
        detail = "The list does not follow the newest accepted one."
        super().__init__(detail, members={"seq": seq, "hash": list_hash.hex()})


@final
class AccountKeyChangedProblem(Problem):
    status, code = 409, "account_key_changed"
    detail = "The list is signed by another account key than the accepted ones."


@final
class FirstListProblem(Problem):
    status, code, detail = 403, "first_list_not_owner", "A user's first device list comes from the user."


@final
class ListedKeysProblem(Problem):
    status, code, detail = 409, "listed_keys_differ", "The list names a registered device with other keys."


@final
class ResetListsProblem(Problem):
    status, code = 409, "reset_lists"
    detail = "A reset is an empty list of the present account key, and a list with devices of a new one."


@final
class DeviceNotListedProblem(Problem):
    status, code, detail = 409, "device_not_listed", "The device is in no device list of its user yet."


# --- Links ---------------------------------------------------------------------------------------------------


@final
class LinkNotFoundProblem(Problem):
    status, code, detail = 404, "link_not_found", "There is no such link of this user, or its ten minutes are over."


@final
class LinkOrderProblem(Problem):
    status, code, detail = 409, "link_order", "The message before this one is missing."


@final
class LinkSlotTakenProblem(Problem):
    status, code, detail = 409, "link_slot_taken", "The link has another message there; each is written once."


# --- Prekeys and claims --------------------------------------------------------------------------------------


@final
class PreKeyConflictProblem(Problem):
    status, code = 409, "prekey_conflict"

    def __init__(self, prekey_id: int, stored_hash: bytes) -> None:
        detail = "The prekey id was published with other bytes; ids are never used again."
        super().__init__(detail, members={"prekey_id": prekey_id, "stored_hash": stored_hash.hex()})


@final
class TooManyPreKeysProblem(Problem):
    status, code = 409, "too_many_prekeys"

    def __init__(self, limit: int) -> None:
        super().__init__(f"At most {limit} one-time prekeys of a kind are offered.", members={"limit": limit})


@final
class PreKeyExpiredProblem(Problem):
    status, code = 422, "prekey_expired"

    def __init__(self, prekey_id: int) -> None:
        super().__init__("The prekey has expired.", members={"prekey_id": prekey_id})


@final
class RequestIdReusedProblem(Problem):
    status, code, detail = 409, "request_id_reused", "The request id was used for another claim."


@final
class PushRefusedProblem(Problem):
    status, code = 422, "push_refused"
    detail = "The server serves no such push service, or the subscription is not of its form."
