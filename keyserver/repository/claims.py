"""SQL on claims.

Owns: the statements on `e2ee_claims` and `e2ee_claimed_bundles`: which request got which prekeys.
Does not know about: the prekeys' bytes, limits, who may claim.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

from sqlalchemy import Connection, and_, delete, select

from e2ee.wire.identifiers import DeviceAddress, DeviceId, PreKeyId, UserId
from keyserver.repository.statements import insert
from keyserver.tables import claimed_bundles, claims


class ClaimRequest(NamedTuple):
    """Who asks, under which id (16 bytes), and the SHA-256 of what is asked."""

    claimer: DeviceAddress
    request_id: bytes
    question: bytes


class ClaimedBundle(NamedTuple):
    """The prekeys of one device that one claim got."""

    address: DeviceAddress
    signed_prekey_id: PreKeyId
    one_time_prekey_id: PreKeyId | None
    kem_prekey_id: PreKeyId


def begin(connection: Connection, request: ClaimRequest, now: int) -> bytes | None:
    """Record a request. Return None if its id is new, else the question it was first used for.

    On PostgreSQL the same request under way in another transaction is waited for.
    """
    added = connection.execute(
        insert(connection, claims)
        .values(**_key(request), question=request.question, created_at=now)
        .on_conflict_do_nothing()
        .returning(claims.c.request_id)
    ).one_or_none()
    if added is not None:
        return None
    same = and_(*(claims.c[name] == value for name, value in _key(request).items()))
    return cast(bytes, connection.execute(select(claims.c.question).where(same)).scalar_one())


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
        connection.execute(insert(connection, claimed_bundles), rows)


def bundles(connection: Connection, request: ClaimRequest) -> Sequence[ClaimedBundle]:
    """Return what the request got, in order of device id."""
    same = and_(*(claimed_bundles.c[name] == value for name, value in _key(request).items()))
    rows = connection.execute(select(claimed_bundles).where(same).order_by(claimed_bundles.c.target_device_id))
    return [
        ClaimedBundle(
            DeviceAddress(UserId(row.target_user_id), DeviceId(row.target_device_id)),
            PreKeyId(row.signed_prekey_id),
            None if row.one_time_prekey_id is None else PreKeyId(row.one_time_prekey_id),
            PreKeyId(row.kem_prekey_id),
        )
        for row in rows
    ]


def forget(connection: Connection, before: int) -> int:
    """Delete requests made before a time, with what they got; return how many."""
    return connection.execute(delete(claims).where(claims.c.created_at < before)).rowcount


def _key(request: ClaimRequest) -> dict[str, object]:
    return {
        "user_id": request.claimer.user_id,
        "device_id": request.claimer.device_id.raw,
        "request_id": request.request_id,
    }
