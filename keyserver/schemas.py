"""Bodies of requests and responses, as OpenAPI describes them.

Owns: JSON names, forms and sizes.
Does not know about: what the wire objects hold; they cross as base64url, device ids and hashes as lower-case hex.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from e2ee.limits import MAX_DEVICES, MAX_LINK_MESSAGE, MAX_TIMESTAMP, MAX_USER_ID, ONE_TIME_PREKEY_BATCH

MAX_WIRE_TEXT = 4096
"""Characters of the longest wire object here: a KEM prekey of 1,645 bytes, a device list of ten devices of 1,130."""

Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", min_length=32, max_length=32, description="16 bytes, hex")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", min_length=64, max_length=64, description="32 bytes, hex")]
Base64Url = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]*$", max_length=MAX_WIRE_TEXT, description="base64url without padding")
]
UserIdText = Annotated[
    str,
    Field(pattern=r"^[!-~]*$", min_length=1, max_length=MAX_USER_ID, description="1 to 128 printable ASCII characters"),
]
Counter = Annotated[int, Field(ge=0, le=MAX_TIMESTAMP)]
Seq = Annotated[int, Field(ge=1, le=MAX_TIMESTAMP)]
Milliseconds = Annotated[int, Field(ge=0, description="Unix milliseconds")]


class Body(BaseModel):
    """Base of all bodies: no conversions, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class ProblemBody(BaseModel):
    """An error (RFC 9457). `code` is stable; other fields depend on it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:e2ee-layer:problem:<code>")
    title: str
    status: int
    code: str
    detail: str


class DeviceIn(Body):
    """A device to register: its id and the keys it keeps for ever."""

    device_id: Hex16
    device_signing_key: Base64Url
    identity_key: Base64Url


class DeviceOut(Body):
    """A registered device."""

    user_id: UserIdText
    device_id: Hex16
    status: Literal["pending", "active"]


class OwnDeviceOut(Body):
    """A device of the caller's own."""

    device_id: Hex16
    status: Literal["pending", "active"]
    registered_at: Milliseconds


class OwnDevicesOut(Body):
    """The caller's devices that have not left, oldest first."""

    devices: list[OwnDeviceOut]


class RecoveryBlobIn(Body):
    """What only the user's recovery code opens; null deletes it."""

    blob: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=MAX_WIRE_TEXT, description="base64url")] | None


class RecoveryBlobOut(Body):
    """What only the user's recovery code opens; null if there is none."""

    blob: str | None


class LinkMessageIn(Body):
    """One message of a link, at most 8 KiB; the two devices alone know what it says."""

    message: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=-(-MAX_LINK_MESSAGE * 4 // 3), description="base64url"),
    ]


class LinkMessageOut(Body):
    """One message of a link; null while it is not written."""

    message: str | None


class LoginIn(Body):
    """Which device logs in."""

    device_id: Hex16


class LoginOut(Body):
    """A login: what the device names in its assertions."""

    login_id: Hex16


class AssertionIn(Body):
    """A login assertion: the signature covers origin, user, device, login and counter."""

    user_id: UserIdText
    device_id: Hex16
    login_id: Hex16
    counter: Counter
    signature: Base64Url


class TokenOut(Body):
    """A device token."""

    token: str = Field(repr=False)
    expires_at: Milliseconds
    expires_in: int = Field(ge=0, description="seconds, for clients whose clock is wrong")


class DeviceListIn(Body):
    """A signed device list."""

    device_list: Base64Url


class AccountResetIn(Body):
    """A last, empty list of the old account key, unless that key is lost, and the first list of the new one."""

    closing_list: Base64Url | None = None
    device_list: Base64Url


class ListPositionOut(Body):
    """Where in the chain of the user's lists."""

    seq: Seq
    hash: Hex32


class DeviceListsOut(Body):
    """Consecutive signed lists, oldest first. If the last of them is not number `newest_seq`, ask again from there."""

    device_lists: list[Base64Url]
    newest_seq: Counter


class PreKeysIn(Body):
    """Prekeys to publish, in one transaction."""

    signed_prekey: Base64Url | None = None
    one_time_prekeys: list[Base64Url] = Field(default_factory=list, max_length=ONE_TIME_PREKEY_BATCH)
    last_resort: Base64Url | None = None
    one_time_kem_prekeys: list[Base64Url] = Field(default_factory=list, max_length=ONE_TIME_PREKEY_BATCH)


class PreKeyCountsOut(Body):
    """What the device offers: numbers of one-time prekeys, ids of the current others."""

    one_time: int = Field(ge=0)
    one_time_kem: int = Field(ge=0)
    signed_prekey_id: int | None
    last_resort_id: int | None


class ClaimIn(Body):
    """Whose bundles to claim. The same `request_id` again gets the same bundles for 24 hours."""

    user_id: UserIdText
    request_id: Hex16
    device_ids: list[Hex16] | None = Field(default=None, max_length=MAX_DEVICES)


class ClaimOut(Body):
    """The user's newest signed list and one bundle per active device; null and none for an unknown user."""

    device_list: Base64Url | None
    bundles: list[Base64Url]


class DevUserIn(Body):
    """Whom the built-in issuer of `keyserver serve --dev` makes a token for."""

    user: UserIdText


class DevTokenOut(Body):
    """A host token of the built-in issuer."""

    token: str = Field(repr=False)
    expires_at: Milliseconds


class HealthOut(Body):
    """The server's state."""

    status: Literal["ok"]


class PushIn(Body):
    """Where a device is woken: an endpoint with its keys (`web`), or the device's token at the service."""

    kind: Literal["web", "fcm", "apns"]
    target: Annotated[str, Field(pattern=r"^[!-~]*$", min_length=1, max_length=2048)]
    public_key: Annotated[Base64Url, Field(max_length=87)] = ""
    auth: Annotated[Base64Url, Field(max_length=22)] = ""


class PushOut(Body):
    """What the server can wake devices through."""

    kinds: list[str]
    vapid_public_key: Base64Url | None
