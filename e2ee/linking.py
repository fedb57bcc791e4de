"""How a second device joins an account (protocol.md section 15).

Owns: the steps of both ends as values: each exists only after the one before it, so that nothing is signed or opened
before a person has confirmed.
Does not know about: the server that carries the messages, stores, how a person is asked.

    new device:       Offer.make -> Offer.compare(answer) -> JoinComparison.confirm -> ConfirmedJoin.open(bundle)
    existing device:  Approval.make(commit) -> Approval.compare(reveal) -> ApprovalComparison.confirm

A server that carries other messages than were sent makes L differ, and so the signs that people compare; it must choose
what it shows to each end before it knows what the other end's nonce will make of it. The bundle is signed with L by the
device whose key is in L, and sealed with L to the key in L, so that a bundle of another link, or of another sender, is
refused. Nothing of a link is stored before the bundle was opened: whoever crashes begins anew.
"""

from dataclasses import dataclass, field
from typing import final

from e2ee.account import Account
from e2ee.errors import InvalidSignatureError, LinkExpiredError, LinkMismatchError, TooManyDevicesError
from e2ee.limits import LINK_LIFETIME_MS, MAX_DEVICES
from e2ee.primitives.rng import Rng
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair, LinkKeyPair, seal_to
from e2ee.short_authentication import Signs, signs_of
from e2ee.transfer import LinkPayload
from e2ee.wire.device_list import ListedDevice, VerifiedDeviceList
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from e2ee.wire.link import (
    LinkAnswer,
    LinkBundle,
    LinkCommit,
    LinkId,
    LinkNonce,
    LinkReveal,
    LinkTranscript,
    bundle_signed_bytes,
    link_transcript,
)

# --- the new device ------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class LinkedAccount:
    """What a link brought: the keys of the new device in its account, and the newest list, which lacks it yet."""

    account: Account
    device_list: VerifiedDeviceList


@final
@dataclass(frozen=True, slots=True)
class Offer:
    """A new device that wants to join. Its keys are in memory only."""

    user_id: UserId
    reveal: LinkReveal
    expires_at: int
    """Unix milliseconds."""
    _link_key_pair: LinkKeyPair
    _device_signing_key_pair: DeviceSigningKeyPair
    _identity_key_pair: IdentityKeyPair

    @classmethod
    def make(cls, user_id: UserId, now: int, rng: Rng) -> "Offer":
        """Make the keys of a device that is to join the account of `user_id`."""
        link, signing, identity = (
            LinkKeyPair.generate(rng),
            DeviceSigningKeyPair.generate(rng),
            IdentityKeyPair.generate(rng),
        )
        device = ListedDevice(DeviceId(rng(16)), signing.public, identity.public)
        reveal = LinkReveal(LinkId(rng(16)), link.public, device, LinkNonce(rng(32)))
        return cls(user_id, reveal, now + LINK_LIFETIME_MS, link, signing, identity)

    @property
    def link_id(self) -> LinkId:
        """Names this attempt; a person carries it to the existing device (`wire.link.link_code`)."""
        return self.reveal.link_id

    @property
    def address(self) -> DeviceAddress:
        """The device that is to be."""
        return DeviceAddress(self.user_id, self.reveal.device.device_id)

    @property
    def commit(self) -> LinkCommit:
        """Message 1."""
        return LinkCommit(self.link_id, self.reveal.commitment())

    def sign(self, signed_bytes: bytes) -> bytes:
        """Sign a login assertion with the device signing key that is to be; returns 64 bytes."""
        return self._device_signing_key_pair.sign(signed_bytes)

    def compare(self, answer: LinkAnswer, now: int) -> "JoinComparison":
        """Take message 2. Message 3 may be sent only now: `reveal`.

        Raises:
            LinkExpiredError: too late.
            LinkMismatchError: of another link, or of another user.
        """
        _check_time(now, self.expires_at)
        if answer.user_id != self.user_id:
            raise LinkMismatchError("a device of another user answered")
        return JoinComparison(self, answer, link_transcript(self.commit, answer, self.reveal))

    def _join(self, answer: LinkAnswer, transcript: LinkTranscript, bundle: LinkBundle) -> LinkedAccount:
        if bundle.link_id != self.link_id:
            raise LinkMismatchError("a bundle of another link")
        sealed = bundle.verify(answer.device_signing_key, transcript)
        payload = LinkPayload.decode(self._link_key_pair.unseal(sealed, transcript.info))
        if payload.user_id != self.user_id or payload.account_key_pair.public != answer.account_key:
            raise LinkMismatchError("the bundle holds another account than the one that was confirmed")
        account = Account(
            self.address, payload.account_key_pair, self._device_signing_key_pair, self._identity_key_pair
        )
        return LinkedAccount(account, _checked_list(payload, answer, self.address.device_id))


@final
@dataclass(frozen=True, slots=True)
class JoinComparison:
    """The new device while two people compare."""

    offer: Offer
    _answer: LinkAnswer
    _transcript: LinkTranscript

    @property
    def signs(self) -> Signs:
        """What the other device must show as well."""
        return signs_of(self._transcript)

    def confirm(self) -> "ConfirmedJoin":
        """A person said that both devices show the same."""
        return ConfirmedJoin(self.offer, self._answer, self._transcript)


@final
@dataclass(frozen=True, slots=True)
class ConfirmedJoin:
    """The new device after its person confirmed."""

    offer: Offer
    _answer: LinkAnswer
    _transcript: LinkTranscript

    def open(self, bundle: LinkBundle, now: int) -> LinkedAccount:
        """Verify message 4, open it, and check that it holds the account that was confirmed.

        Raises:
            LinkExpiredError: too late.
            InvalidSignatureError: not signed, for this link, by the device that was confirmed.
            AuthenticationError: not sealed to us with this L.
            LinkMismatchError: of another link, or another account than the one confirmed.
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: the contents do not decode.
        """
        _check_time(now, self.offer.expires_at)
        return self.offer._join(self._answer, self._transcript, bundle)


def _checked_list(payload: LinkPayload, answer: LinkAnswer, new_device: DeviceId) -> VerifiedDeviceList:
    """Check the list of a payload: of this account, with the device that answered, and not with ours under its id."""
    verified = payload.device_list.verify(payload.user_id)
    if verified.content.account_key != answer.account_key:
        raise InvalidSignatureError("device list: signed by another account key than the confirmed one")
    answering = verified.content.device(answer.device_id)
    if answering is None or answering.device_signing_key != answer.device_signing_key:
        raise LinkMismatchError("the device that answered is not in its own list")
    if verified.content.device(new_device) is not None:
        raise LinkMismatchError("the list holds the new device already")
    return verified


# --- the existing device -------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Approval:
    """An existing device that was asked to let a new one in."""

    commit: LinkCommit
    answer: LinkAnswer
    """Message 2."""
    expires_at: int
    _account: Account
    _device_list: VerifiedDeviceList = field(repr=False)

    @classmethod
    def make(
        cls, account: Account, device_list: VerifiedDeviceList, commit: LinkCommit, now: int, rng: Rng
    ) -> "Approval":
        """Take message 1. `device_list` is the newest of our own chain.

        Raises:
            TooManyDevicesError: the account has as many devices as it may.
        """
        if len(device_list.content.devices) >= MAX_DEVICES:
            raise TooManyDevicesError(MAX_DEVICES)
        party = account.party
        answer = LinkAnswer(
            commit.link_id,
            account.address.user_id,
            party.account_key,
            account.address.device_id,
            party.device_signing_key,
            LinkNonce(rng(LinkNonce.LENGTH)),
        )
        return cls(commit, answer, now + LINK_LIFETIME_MS, account, device_list)

    def compare(self, reveal: LinkReveal, now: int) -> "ApprovalComparison":
        """Take message 3.

        Raises:
            LinkExpiredError: too late.
            LinkMismatchError: of another link, not what was committed to, or a device id that is taken.
        """
        _check_time(now, self.expires_at)
        if self._device_list.content.device(reveal.device.device_id) is not None:
            raise LinkMismatchError("the device id is taken")
        return ApprovalComparison(self, reveal, link_transcript(self.commit, self.answer, reveal))

    def _seal(self, reveal: LinkReveal, transcript: LinkTranscript) -> LinkBundle:
        account = self._account
        payload = LinkPayload(account.address.user_id, account.account_key_pair, self._device_list.signed)
        sealed = seal_to(reveal.link_key, payload.encode(), transcript.info)
        signature = account.device_signing_key_pair.sign(bundle_signed_bytes(transcript, sealed))
        return LinkBundle(reveal.link_id, sealed, signature)


@final
@dataclass(frozen=True, slots=True)
class ApprovalComparison:
    """The existing device while two people compare. Nothing of the account has left it yet."""

    _approval: Approval
    _reveal: LinkReveal
    _transcript: LinkTranscript

    @property
    def signs(self) -> Signs:
        """What the other device must show as well."""
        return signs_of(self._transcript)

    def confirm(self, now: int) -> "ConfirmedApproval":
        """A person said that both devices show the same: seal and sign the bundle.

        Raises:
            LinkExpiredError: too late.
            InvalidPublicKeyError: nothing can be sealed to the new device's key.
        """
        _check_time(now, self._approval.expires_at)
        return ConfirmedApproval(self._approval._seal(self._reveal, self._transcript), self._reveal.device)


@final
@dataclass(frozen=True, slots=True)
class ConfirmedApproval:
    """What an existing device sends once its person confirmed, and whom it may put into the list."""

    bundle: LinkBundle
    """Message 4."""
    device: ListedDevice


def _check_time(now: int, expires_at: int) -> None:
    # A clock that was set back does not make it longer.
    if not expires_at - LINK_LIFETIME_MS <= now < expires_at:
        raise LinkExpiredError
