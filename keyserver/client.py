"""The key server's client: registers a device, publishes its keys, fetches those of others.

Owns: the endpoints as calls, logging in, and that every answer is parsed before anybody sees it.
Does not know about: private keys (a callable signs), stores, whether a list or bundle is to be trusted: parsed is not
verified, and the caller verifies.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar, final

import httpx

from e2ee.errors import ProtocolError
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.link import LinkId, LinkSlot
from e2ee.wire.login_assertion import LoginAssertion, LoginId
from e2ee.wire.prekey_bundle import KemPreKey, OneTimePreKey, PreKeyBundle, SignedPreKey
from e2ee.wire.public_keys import DeviceSigningKey, IdentityKey
from keyserver.client_http import (
    Answer,
    ClientOptions,
    CounterBehindError,
    DeviceListConflictError,
    InsecureServerUrlError,
    JsonApi,
    KeyServerError,
    KeyServerRefusedError,
    KeyServerUnavailableError,
    MalformedAnswerError,
    PreKeyConflictError,
    RateLimitedError,
)

__all__ = [
    "Claim",
    "ClientOptions",
    "CounterBehindError",
    "DeviceListConflictError",
    "InsecureServerUrlError",
    "KeyServerClient",
    "KeyServerError",
    "KeyServerRefusedError",
    "KeyServerUnavailableError",
    "MalformedAnswerError",
    "OwnDevice",
    "PreKeyConflictError",
    "PreKeyCounts",
    "PreKeyUpload",
    "RateLimitedError",
]

T = TypeVar("T")

TOKEN_SPARE_SECONDS: Final = 60
"""A token is renewed this long before it expires."""

MAX_HISTORY: Final = 4_096
"""Device lists fetched at once: the server decides how many there are, and memory is ours."""

_DEFAULT_OPTIONS: Final = ClientOptions()


@final
@dataclass(frozen=True, slots=True)
class PreKeyUpload:
    """Prekeys to publish together."""

    signed_prekey: SignedPreKey | None = None
    one_time_prekeys: tuple[OneTimePreKey, ...] = ()
    last_resort: KemPreKey | None = None
    one_time_kem_prekeys: tuple[KemPreKey, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class PreKeyCounts:
    """What this device offers on the server: numbers of one-time prekeys, ids of the current others."""

    one_time: int
    one_time_kem: int
    signed_prekey_id: int | None
    last_resort_id: int | None


@final
@dataclass(frozen=True, slots=True)
class OwnDevice:
    """A device of our own user, as the server says."""

    device_id: DeviceId
    is_listed: bool
    """Whether the newest list that the server accepted holds it."""


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim got: the user's newest list (None: no such user) and bundles of devices. Parsed, not verified."""

    device_list: SignedDeviceList | None
    bundles: tuple[PreKeyBundle, ...]


@final
class PushServices(NamedTuple):
    """What the server can wake devices through; `vapid_public_key` is 65 bytes, or empty without Web Push."""

    kinds: tuple[str, ...]
    vapid_public_key: bytes


@final
class KeyServerClient:
    """One device's connection to its key server. Safe for concurrent calls."""

    def __init__(  # noqa: PLR0913  # keyword-only but for the first two
        self,
        server: str,
        address: DeviceAddress,
        *,
        host_token: Callable[[], Awaitable[str]],
        sign: Callable[[bytes], bytes],
        next_counter: Callable[[], Awaitable[int]],
        keys: tuple[DeviceSigningKey, IdentityKey] | None = None,
        http: httpx.AsyncClient | None = None,
        options: ClientOptions = _DEFAULT_OPTIONS,
    ) -> None:
        """Take what logging in needs.

        `host_token` gives the host application's JWT of this user. `sign` signs with the device signing key.
        `next_counter` gives a number above all that it ever gave for this device, so its caller persists it.
        With `keys`, a device that the server has forgotten, because it was restored from a backup, is registered again.

        Raises:
            InsecureServerUrlError: http:// beyond loopback.
        """
        self._api = JsonApi(server, http, options)
        self._address = address
        self._host_token = host_token
        self._sign = sign
        self._next_counter = next_counter
        self._keys = keys
        self._clock = options.clock
        self._lock = asyncio.Lock()
        self._login_id: LoginId | None = None
        self._token = ""
        self._token_until = 0.0

    async def register_device(self, device_signing_key: DeviceSigningKey, identity_key: IdentityKey) -> None:
        """Register this device. The same keys again change nothing; others are refused for ever.

        Raises:
            KeyServerError: see client_http.py; all calls raise these.
        """
        body = {
            "device_id": str(self._address.device_id),
            "device_signing_key": to_base64url(device_signing_key.raw),
            "identity_key": to_base64url(identity_key.raw),
        }
        await self._api.request("POST", "/v1/devices", token=await self._host_token(), body=body)

    async def own_devices(self) -> tuple[OwnDevice, ...]:
        """Return the devices of this user that have not left, as the server has them."""
        answer = await self._as_user("GET", "/v1/devices")
        return tuple(_own_device(each) for each in answer.records("devices"))

    async def store_recovery_blob(self, blob: bytes | None) -> None:
        """Leave what only our recovery code opens with the server, in the place of the one before; None deletes it."""
        body = {"blob": None if blob is None else to_base64url(blob)}
        await self._as_device("PUT", "/v1/recovery-blob", body=body)

    async def recovery_blob(self) -> bytes | None:
        """Return what was left with the server to recover this user's account."""
        text = (await self._as_user("GET", "/v1/recovery-blob")).optional_text("blob")
        return None if text is None else _parsed(bytes, text)

    async def put_link_message(self, link_id: LinkId, slot: LinkSlot, message: bytes) -> None:
        """Write one of the four messages of a link. The same bytes again change nothing.

        Raises:
            KeyServerRefusedError: `link_slot_taken`, `link_order`, `link_not_found`.
        """
        body = {"message": to_base64url(message)}
        await self._as_user("PUT", f"/v1/links/{link_id}/{slot.value}", body=body)

    async def link_message(self, link_id: LinkId, slot: LinkSlot) -> bytes | None:
        """Return a message of a link; None while it is not written.

        Raises:
            KeyServerRefusedError: `link_not_found`: there is no such link of this user, or its time is over.
        """
        answer = await self._as_user("GET", f"/v1/links/{link_id}/{slot.value}")
        text = answer.optional_text("message")
        return None if text is None else _parsed(bytes, text)

    async def publish_device_list(self, signed: SignedDeviceList) -> None:
        """Publish a list that follows the newest one; a list that was accepted before changes nothing.

        Raises:
            DeviceListConflictError: it does not follow; another device was faster, or links are missing.
        """
        await self._as_device("PUT", "/v1/device-lists", body={"device_list": to_base64url(signed.encode())})

    async def reset_account(self, closing: SignedDeviceList | None, first: SignedDeviceList) -> None:
        """Give this user a new account key, whose first list is `first`, after a last list of the old key.

        Raises:
            DeviceListConflictError: they do not follow the newest list.
        """
        body = {
            "closing_list": None if closing is None else to_base64url(closing.encode()),
            "device_list": to_base64url(first.encode()),
        }
        await self._as_user("POST", "/v1/account-resets", body=body)

    async def device_lists(
        self, user_id: UserId, *, from_seq: int = 1, registered: bool = True
    ) -> tuple[SignedDeviceList, ...]:
        """Return a user's lists from a number on: consecutive, oldest first, the newest last; none if unknown.

        They begin later if the server was emptied, and was given no older ones. `registered=False` asks for this device
        when the server does not know it yet.
        """
        ask = self._as_device if registered else self._as_user
        lists: list[SignedDeviceList] = []
        start = from_seq
        while True:
            query = {"user_id": user_id, "from_seq": start}
            answer = await ask("GET", "/v1/device-lists", query=query)
            newest = answer.number("newest_seq")
            page = [_parsed(SignedDeviceList.decode, text) for text in answer.texts("device_lists")]
            if page and not lists:
                start = max(start, page[0].unverified.seq)
            for seq, each in enumerate(page, start):
                if each.unverified.user_id != user_id or each.unverified.seq != seq:
                    raise MalformedAnswerError("a device list that was not asked for")
            lists += page
            start += len(page)
            if start > newest:
                return tuple(lists)
            if not page or len(lists) > MAX_HISTORY:
                raise MalformedAnswerError("a history without end")

    async def publish_prekeys(self, upload: PreKeyUpload) -> PreKeyCounts:
        """Publish prekeys, all or none; the same bytes again change nothing. Return what is offered then.

        Raises:
            PreKeyConflictError: an id was published before with other bytes.
        """
        body = {
            "signed_prekey": None if upload.signed_prekey is None else to_base64url(upload.signed_prekey.encode()),
            "one_time_prekeys": [to_base64url(each.encode()) for each in upload.one_time_prekeys],
            "last_resort": None if upload.last_resort is None else to_base64url(upload.last_resort.encode()),
            "one_time_kem_prekeys": [to_base64url(each.encode()) for each in upload.one_time_kem_prekeys],
        }
        return _counts(await self._as_device("PUT", "/v1/prekeys", body=body))

    async def prekey_counts(self) -> PreKeyCounts:
        """Return what this device offers."""
        return _counts(await self._as_device("GET", "/v1/prekeys"))

    async def claim(self, user_id: UserId, request_id: bytes, device_ids: Sequence[DeviceId] | None = None) -> Claim:
        """Claim one bundle of each active device of a user, or of the named ones.

        The same request id (16 random bytes) again gets the same bundles for 24 hours.

        Raises:
            RateLimitedError: too often.
        """
        body: dict[str, Any] = {"user_id": user_id, "request_id": request_id.hex()}
        if device_ids is not None:
            body["device_ids"] = [str(each) for each in device_ids]
        answer = await self._as_device("POST", "/v1/claims", body=body)
        text = answer.optional_text("device_list")
        device_list = None if text is None else _parsed(SignedDeviceList.decode, text)
        if device_list is not None and device_list.unverified.user_id != user_id:
            raise MalformedAnswerError("another user's device list")
        bundles = tuple(_parsed(PreKeyBundle.decode, each) for each in answer.texts("bundles"))
        _check_asked_for(bundles, user_id, device_ids)
        return Claim(device_list, bundles)

    async def push_services(self) -> PushServices:
        """Return which push services the server can wake this device through."""
        answer = await self._as_device("GET", "/v1/push")
        key = answer.optional_text("vapid_public_key")
        return PushServices(tuple(answer.texts("kinds")), b"" if key is None else _parsed(bytes, key))

    async def subscribe_push(self, kind: str, target: str, public_key: bytes = b"", auth: bytes = b"") -> None:
        """Say where this device is woken: `web` with an endpoint and its keys, or `fcm` or `apns` with a token.

        Of a browser's subscription `public_key` is p256dh, 65 bytes, and `auth` 16 bytes.

        Raises:
            KeyServerRefusedError: the server serves no such service, or takes no such endpoint.
        """
        body = {"kind": kind, "target": target, "public_key": to_base64url(public_key), "auth": to_base64url(auth)}
        await self._as_device("PUT", "/v1/push-subscription", body=body)

    async def unsubscribe_push(self) -> None:
        """Do not have this device woken any more."""
        await self._as_device("DELETE", "/v1/push-subscription")

    async def device_token(self) -> str:
        """Return a device token that is good for another minute, logging in if need be.

        Raises:
            CounterBehindError: the store that counts is older than this device.
        """
        async with self._lock:
            if self._clock() >= self._token_until:
                await self._renew()
            return self._token

    def forget_token(self) -> None:
        """Do not give the device token out again: the server refused it before its time."""
        self._token_until = 0.0

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._api.aclose()

    async def _as_user(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Answer:
        return await self._api.request(method, path, token=await self._host_token(), body=body, query=query)

    async def _as_device(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Answer:
        token = await self.device_token()
        try:
            return await self._api.request(method, path, token=token, body=body, query=query)
        except KeyServerRefusedError as refusal:
            if refusal.code not in ("token_invalid", "token_expired"):
                raise
        # The server restarted with another secret, or ended the login: log in again, once.
        if self._token == token:
            self._token_until = 0.0
        token = await self.device_token()
        return await self._api.request(method, path, token=token, body=body, query=query)

    async def _renew(self) -> None:
        """Get a token within the login, or within a new one if it has ended. The caller holds the lock."""
        if self._login_id is not None:
            try:
                return await self._assert(self._login_id)
            except KeyServerRefusedError as refusal:
                if refusal.code not in ("login_ended", "assertion_refused"):
                    raise
        body = {"device_id": str(self._address.device_id)}
        try:
            answer = await self._api.request("POST", "/v1/logins", token=await self._host_token(), body=body)
        except KeyServerRefusedError as refusal:
            if refusal.code != "device_not_registered" or self._keys is None:
                raise
            await self.register_device(*self._keys)
            answer = await self._api.request("POST", "/v1/logins", token=await self._host_token(), body=body)
        try:
            self._login_id = LoginId.from_hex(answer.text("login_id"))
        except ProtocolError:
            raise MalformedAnswerError("login_id") from None
        return await self._assert(self._login_id)

    async def _assert(self, login_id: LoginId) -> None:
        counter = await self._next_counter()
        assertion = LoginAssertion(self._api.origin, self._address, login_id, counter)
        body = {
            "user_id": self._address.user_id,
            "device_id": str(self._address.device_id),
            "login_id": str(login_id),
            "counter": counter,
            "signature": to_base64url(self._sign(assertion.signed_bytes())),
        }
        asked_at = self._clock()
        # Not repeated by itself: a lost answer used the counter up. The caller's next call signs a higher one.
        answer = await self._api.request("POST", "/v1/tokens", body=body, repeat=False)
        self._token = answer.text("token")
        self._token_until = asked_at + answer.number("expires_in") - TOKEN_SPARE_SECONDS


def _parsed(decode: Callable[[bytes], T], text: str) -> T:
    try:
        return decode(from_base64url(text))
    except ProtocolError as error:
        raise MalformedAnswerError(str(error)) from None


def _own_device(answer: Answer) -> OwnDevice:
    try:
        return OwnDevice(DeviceId.from_hex(answer.text("device_id")), answer.text("status") == "active")
    except ProtocolError:
        raise MalformedAnswerError("device_id") from None


def _counts(answer: Answer) -> PreKeyCounts:
    return PreKeyCounts(
        answer.number("one_time"),
        answer.number("one_time_kem"),
        answer.optional_number("signed_prekey_id"),
        answer.optional_number("last_resort_id"),
    )


def _check_asked_for(bundles: Sequence[PreKeyBundle], user_id: UserId, device_ids: Sequence[DeviceId] | None) -> None:
    got = [bundle.address for bundle in bundles]
    asked = {DeviceAddress(user_id, each) for each in device_ids} if device_ids is not None else set(got)
    if len(set(got)) != len(got) or not asked.issuperset(got) or any(each.user_id != user_id for each in got):
        raise MalformedAnswerError("a bundle that was not asked for")
