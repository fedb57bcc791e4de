"""SQL on claims.

Owns: the statements on `e2ee_claims` and `e2ee_claimed_bundles`: which request got which prekeys.
Does not know about: limits, who may claim.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, insert, select

from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from e2ee.wire.prekey_bundle import bundle_of_encoded
from keyserver.repository.statements import Upsert
from keyserver.tables import DeviceStatus, PreKeyKind, claimed_bundles, claims, devices, prekeys


class ClaimRequest(NamedTuple):
    """Who asks, under which id (16 bytes), and the SHA-256 of what is asked."""

    claimer: DeviceAddress
    request_id: bytes
    question: bytes


class ClaimedBundle(NamedTuple):
    """The ids of the prekeys of one device that one claim got."""

    address: DeviceAddress
    signed_prekey_id: PreKeyId
    one_time_prekey_id: PreKeyId | None
    kem_prekey_id: PreKeyId


class BundleBodies(NamedTuple):
    """The encoded prekeys of one device that one claim got: a bundle as it was published, not parsed again."""

    address: DeviceAddress
    signed_prekey: bytes
    one_time_prekey: bytes | None
    kem_prekey: bytes

    def encode(self) -> bytes:
        """Return the bytes of the `PreKeyBundle`."""
        return bundle_of_encoded(*self)


def begin(connection: Connection, request: ClaimRequest, now: int) -> bytes | None:
    """Record a request. Return None if its id is new, else the question it was first used for.

    On PostgreSQL the same request under way in another transaction is waited for.
    """
    values = {**_key(request), "question": request.question, "created_at": now}
    if connection.execute(_BEGIN.on(connection), values).one_or_none() is not None:
        return None
    question: bytes = connection.execute(_QUESTION, _named(request)).scalar_one()
    return question


def add_bundles(connection: Connection, request: ClaimRequest, bundles: Sequence[ClaimedBundle]) -> None:
    """Record what the request got."""
    rows = [
        _key(request)
        | {
            "target_user_id": each.address.user_id,
            "target_device_id": each.address.device_id.raw,
            "signed_prekey_id": each.signed_prekey_id,
            "one_time_prekey_id": each.one_time_prekey_id,
            "kem_prekey_id": each.kem_prekey_id,
        }
        for each in bundles
    ]
    if rows:
        connection.execute(_ADD_BUNDLES, rows)


def bundles(connection: Connection, request: ClaimRequest) -> Sequence[BundleBodies]:
    """Return what the request got of devices that are still active, in order of device id.

    The bytes are held for as long as the request is.
    """
    rows = connection.execute(_BUNDLES, _named(request)).all()
    return [
        _bundle(DeviceAddress(UserId(user_id), DeviceId(device_id)), {row.kind: row.body for row in of_device})
        for (user_id, device_id), of_device in groupby(rows, lambda row: (row.user_id, row.device_id))
    ]


def forget(connection: Connection, before: int) -> int:
    """Delete requests made before a time, with what they got; return how many."""
    return connection.execute(delete(claims).where(claims.c.created_at < before)).rowcount


def _bundle(address: DeviceAddress, bodies: dict[int, bytes]) -> BundleBodies:
    kem_kind = PreKeyKind.ONE_TIME_KEM if PreKeyKind.ONE_TIME_KEM in bodies else PreKeyKind.LAST_RESORT_KEM
    return BundleBodies(address, bodies[PreKeyKind.SIGNED], bodies.get(PreKeyKind.ONE_TIME), bodies[kem_kind])


def _key(request: ClaimRequest) -> dict[str, Any]:
    return {
        "user_id": request.claimer.user_id,
        "device_id": request.claimer.device_id.raw,
        "request_id": request.request_id,
    }


def _named(request: ClaimRequest) -> dict[str, Any]:
    return {f"its_{name}": value for name, value in _key(request).items()}


_BEGIN = Upsert(claims, lambda insert: insert.on_conflict_do_nothing().returning(claims.c.request_id))
_QUESTION = select(claims.c.question).where(
    claims.c.user_id == bindparam("its_user_id"),
    claims.c.device_id == bindparam("its_device_id"),
    claims.c.request_id == bindparam("its_request_id"),
)
_ADD_BUNDLES = insert(claimed_bundles)
_BUNDLES = (
    select(prekeys.c.user_id, prekeys.c.device_id, prekeys.c.kind, prekeys.c.body)
    .select_from(claimed_bundles)
    .join(
        prekeys,
        and_(
            prekeys.c.user_id == claimed_bundles.c.target_user_id,
            prekeys.c.device_id == claimed_bundles.c.target_device_id,
            prekeys.c.prekey_id.in_(
                [
                    claimed_bundles.c.signed_prekey_id,
                    claimed_bundles.c.one_time_prekey_id,
                    claimed_bundles.c.kem_prekey_id,
                ]
            ),
        ),
    )
    .join(devices, and_(devices.c.user_id == prekeys.c.user_id, devices.c.device_id == prekeys.c.device_id))
    .where(
        devices.c.status == DeviceStatus.ACTIVE,
        claimed_bundles.c.user_id == bindparam("its_user_id"),
        claimed_bundles.c.device_id == bindparam("its_device_id"),
        claimed_bundles.c.request_id == bindparam("its_request_id"),
    )
    .order_by(prekeys.c.device_id)
)
