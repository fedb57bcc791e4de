"""SQL on claims of many at once, on PostgreSQL: two statements for a whole group.

Owns: the statements; that within a group, as between transactions, no one-time prekey is handed out twice.
Does not know about: limits' sizes and names, who may claim, what is done with those that are left out.

They do what repository/claims.py, prekeys.py and rate_limits.py do for one request, in the same order and so with the
same locks: the requests, then their buckets, then the prekeys. Rows that others may wait for are locked in one order
(by key) in every transaction.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from keyserver.repository.claims import BundleBodies, ClaimRequest
from keyserver.repository.logins import Presumed
from keyserver.repository.rate_limits import RateLimit
from keyserver.tables import DeviceStatus, PreKeyKind


class Buckets(NamedTuple):
    """The names of the buckets that one claim takes a token from."""

    pair: str
    claimer: str
    target: str


class Wanted(NamedTuple):
    """Whose bundles one request gets: of all active devices, or of the named ones."""

    user_id: UserId
    device_ids: frozenset[DeviceId] | None


class Given(NamedTuple):
    """What one request got: the user's newest encoded list, the bundles in order of device id."""

    device_list: bytes | None
    bundles: Sequence[BundleBodies]


def begin(
    connection: Connection,
    group: Sequence[tuple[ClaimRequest, Buckets, Presumed | None]],
    limits: Sequence[RateLimit],
    now: int,
    lock_ms: int,
) -> list[bool | None]:
    """Record requests, which are all different, and take a token for each from its three buckets.

    Return for each: True; False if a bucket has none left for all that ask; None, and nothing done, if the request is
    not new, or the claimer's presumed login does not stand. If any is False the transaction is to be rolled back, for
    the tokens of the refused ones are taken in part.

    For a row that another transaction holds it waits for `lock_ms` at most, and so does the rest of the transaction.
    """
    requests, buckets = [request for request, _, _ in group], [each for _, each, _ in group]
    presumed = [each for _, _, each in group]
    parameters: dict[str, Any] = {
        **_keys(requests),
        "questions": [each.question for each in requests],
        "pairs": [each.pair for each in buckets],
        "claimers": [each.claimer for each in buckets],
        "targets": [each.target for each in buckets],
        "logins": [None if each is None else each.login_id.raw for each in presumed],
        "versions": [0 if each is None else each.token_version for each in presumed],
        "now": now,
        "lock_ms": str(lock_ms),
    }
    for name, limit in zip(("pair", "claimer", "target"), limits, strict=True):
        parameters |= {f"{name}_burst": limit.burst, f"{name}_interval": limit.interval_ms}
    outcomes: list[bool | None] = [None] * len(group)
    for item, taken in connection.execute(_BEGIN, parameters):
        outcomes[item - 1] = taken
    return outcomes


def claim(connection: Connection, group: Sequence[tuple[ClaimRequest, Wanted]], now: int) -> list[Given]:
    """Hand out bundles to requests that `begin` has recorded, and record who got what; return it for each.

    A device that offers no usable signed or KEM prekey gives no bundle and loses no prekey.
    """
    named = [
        (item, device_id.raw) for item, (_, wanted) in enumerate(group, 1) for device_id in wanted.device_ids or ()
    ]
    parameters = {
        **_keys([request for request, _ in group]),
        "whom": [wanted.user_id for _, wanted in group],
        "all": [wanted.device_ids is None for _, wanted in group],
        "named_items": [item for item, _ in named],
        "named_devices": [raw for _, raw in named],
        "now": now,
    }
    given: list[Given] = []
    bundles: list[BundleBodies] = []
    for item, user_id, device_id, signed, one_time, kem, device_list in connection.execute(_CLAIM, parameters):
        if item > len(given):
            bundles = []
            given.append(Given(device_list, bundles))
        if device_id is not None:
            bundles.append(BundleBodies(DeviceAddress(UserId(user_id), DeviceId(device_id)), signed, one_time, kem))
    return given


def _keys(requests: Sequence[ClaimRequest]) -> dict[str, Any]:
    return {
        "users": [each.claimer.user_id for each in requests],
        "devices": [each.claimer.device_id.raw for each in requests],
        "requests": [each.request_id for each in requests],
    }


def _bucket(name: str, before: str) -> str:
    """Take the tokens from one kind of bucket, from none that lacks a token, and not before those of `before`."""
    full_at = "greatest(bucket.full_at, :now) + excluded.full_at - :now"
    return f"""
    by_{name} AS (
        INSERT INTO e2ee_rate_limits AS bucket (name, full_at)
        SELECT {name}, :now + count(*) * :{name}_interval FROM fresh
        WHERE (SELECT count(*) FROM {before}) >= 0
        GROUP BY {name} HAVING count(*) <= :{name}_burst ORDER BY {name}
        ON CONFLICT (name) DO UPDATE SET full_at = {full_at}
        WHERE {full_at} <= :now + CAST(:{name}_burst AS bigint) * CAST(:{name}_interval AS bigint)
        RETURNING name
    )"""  # noqa: S608 - names from this module


def _one_time(name: str, kind: PreKeyKind, takers: str) -> str:
    """Pick each device's oldest one-time prekeys of a kind, one for each taker, and number them.

    A row that another transaction has locked is skipped: both get a key, neither waits.
    """
    return f"""
    {name} AS MATERIALIZED (
        SELECT device.user_id, device.device_id, key.prekey_id,
            row_number() OVER (PARTITION BY user_id, device_id ORDER BY key.published_at, key.prekey_id) AS place
        FROM (SELECT user_id, device_id, count(*) AS number FROM {takers} GROUP BY user_id, device_id) device
        CROSS JOIN LATERAL (
            SELECT its.prekey_id, its.published_at FROM e2ee_prekeys its
            WHERE its.user_id = device.user_id AND its.device_id = device.device_id AND its.kind = {kind:d}
                AND its.spent_at IS NULL AND (its.expires_at IS NULL OR its.expires_at > :now)
            ORDER BY its.published_at, its.prekey_id LIMIT device.number FOR UPDATE SKIP LOCKED
        ) key
    )"""  # noqa: S608 - names from this module


def _offered(name: str, kind: PreKeyKind) -> str:
    return f"""e2ee_prekeys {name} ON {name}.user_id = device.user_id AND {name}.device_id = device.device_id
            AND {name}.kind = {kind:d} AND {name}.spent_at IS NULL
            AND ({name}.expires_at IS NULL OR {name}.expires_at > :now)"""


# Whether a token stands is judged as in auth.py, which says what is wrong with one that does not.
# The limit of time is set by the statement itself, which saves a round trip: before any row is locked `asked` is read,
# which waits for `hurry`.
_BEGIN = text(f"""
WITH
    hurry AS MATERIALIZED (SELECT set_config('lock_timeout', :lock_ms, true)),
    asked AS MATERIALIZED (
        SELECT its.* FROM hurry CROSS JOIN unnest(
            CAST(:users AS text[]), CAST(:devices AS bytea[]), CAST(:requests AS bytea[]), CAST(:questions AS bytea[]),
            CAST(:pairs AS text[]), CAST(:claimers AS text[]), CAST(:targets AS text[]),
            CAST(:logins AS bytea[]), CAST(:versions AS bigint[])
        ) WITH ORDINALITY
            AS its (user_id, device_id, request_id, question, pair, claimer, target, login_id, token_version, item)
        WHERE its.login_id IS NULL OR EXISTS (
            SELECT FROM e2ee_devices device JOIN e2ee_logins login ON login.user_id = device.user_id
                AND login.device_id = device.device_id AND login.login_id = its.login_id
            WHERE device.user_id = its.user_id AND device.device_id = its.device_id
                AND device.status <> {DeviceStatus.RETIRED:d} AND device.token_version = its.token_version
                AND login.expires_at > :now
        )
    ),
    recorded AS (
        INSERT INTO e2ee_claims (user_id, device_id, request_id, question, created_at)
        SELECT user_id, device_id, request_id, question, :now FROM asked ORDER BY user_id, device_id, request_id
        ON CONFLICT DO NOTHING RETURNING user_id, device_id, request_id
    ),
    fresh AS MATERIALIZED (
        SELECT item, pair, claimer, target FROM asked JOIN recorded USING (user_id, device_id, request_id)
    ),
    {_bucket("pair", "fresh")},
    {_bucket("claimer", "by_pair")},
    {_bucket("target", "by_claimer")}
SELECT fresh.item, by_pair.name IS NOT NULL AND by_claimer.name IS NOT NULL AND by_target.name IS NOT NULL
FROM fresh
    LEFT JOIN by_pair ON by_pair.name = fresh.pair
    LEFT JOIN by_claimer ON by_claimer.name = fresh.claimer
    LEFT JOIN by_target ON by_target.name = fresh.target
""")  # noqa: S608 - names from this module

# `served` numbers the requests that get a bundle of a device; the prekey of the same number is theirs. What is handed
# out comes from `marked`, so that nothing is that was not marked.
_CLAIM = text(f"""
WITH
    asked AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:users AS text[]), CAST(:devices AS bytea[]), CAST(:requests AS bytea[]), CAST(:whom AS text[]),
            CAST(:all AS boolean[])
        ) WITH ORDINALITY AS its (user_id, device_id, request_id, target, all_devices, item)
    ),
    named AS (
        SELECT * FROM unnest(CAST(:named_items AS bigint[]), CAST(:named_devices AS bytea[])) AS its (item, device_id)
    ),
    offers AS MATERIALIZED (
        SELECT device.user_id, device.device_id, signed.prekey_id AS signed_id, signed.body AS signed_body,
            last_resort.prekey_id AS last_resort_id, last_resort.body AS last_resort_body
        FROM (SELECT DISTINCT target FROM asked) whom
            JOIN e2ee_devices device ON device.user_id = whom.target AND device.status = {DeviceStatus.ACTIVE:d}
            JOIN {_offered("signed", PreKeyKind.SIGNED)}
            LEFT JOIN {_offered("last_resort", PreKeyKind.LAST_RESORT_KEM)}
    ),
    pairs AS MATERIALIZED (
        SELECT asked.item, asked.request_id, offers.user_id, offers.device_id, offers.last_resort_id,
            row_number() OVER (PARTITION BY offers.user_id, offers.device_id ORDER BY asked.item) AS place
        FROM asked JOIN offers ON offers.user_id = asked.target
        WHERE asked.all_devices
            OR EXISTS (SELECT FROM named WHERE named.item = asked.item AND named.device_id = offers.device_id)
    ),
    {_one_time("kem", PreKeyKind.ONE_TIME_KEM, "pairs")},
    served AS MATERIALIZED (
        SELECT item, request_id, user_id, device_id, place, kem.prekey_id AS kem_id
        FROM pairs LEFT JOIN kem USING (user_id, device_id, place)
        WHERE kem.prekey_id IS NOT NULL OR last_resort_id IS NOT NULL
    ),
    {_one_time("one_time", PreKeyKind.ONE_TIME, "served")},
    picked AS (
        SELECT user_id, device_id, kem_id AS prekey_id, request_id, item FROM served WHERE kem_id IS NOT NULL
        UNION ALL
        SELECT user_id, device_id, one_time.prekey_id, request_id, item
        FROM one_time JOIN served USING (user_id, device_id, place)
    ),
    marked AS (
        UPDATE e2ee_prekeys key SET spent_at = :now, claim_request = picked.request_id FROM picked
        WHERE key.user_id = picked.user_id AND key.device_id = picked.device_id
            AND key.prekey_id = picked.prekey_id AND key.spent_at IS NULL
        RETURNING picked.item, key.user_id, key.device_id, key.kind, key.prekey_id, key.body
    ),
    bundles AS MATERIALIZED (
        SELECT served.item, offers.user_id, offers.device_id, offers.signed_id, offers.signed_body,
            one_time.prekey_id AS one_time_id, one_time.body AS one_time_body,
            coalesce(kem.prekey_id, offers.last_resort_id) AS kem_id,
            coalesce(kem.body, offers.last_resort_body) AS kem_body
        FROM served JOIN offers USING (user_id, device_id)
            LEFT JOIN marked kem ON kem.item = served.item AND kem.device_id = served.device_id
                AND kem.kind = {PreKeyKind.ONE_TIME_KEM:d}
            LEFT JOIN marked one_time ON one_time.item = served.item AND one_time.device_id = served.device_id
                AND one_time.kind = {PreKeyKind.ONE_TIME:d}
    ),
    recorded AS (
        INSERT INTO e2ee_claimed_bundles (user_id, device_id, request_id, target_user_id, target_device_id,
            signed_prekey_id, one_time_prekey_id, kem_prekey_id)
        SELECT asked.user_id, asked.device_id, asked.request_id, bundles.user_id, bundles.device_id,
            bundles.signed_id, bundles.one_time_id, bundles.kem_id
        FROM bundles JOIN asked USING (item)
    )
SELECT asked.item, bundles.user_id, bundles.device_id, signed_body, one_time_body, kem_body, (
    SELECT its.body FROM e2ee_device_lists its WHERE its.user_id = asked.target ORDER BY its.seq DESC LIMIT 1
) AS list
FROM asked LEFT JOIN bundles USING (item) ORDER BY asked.item, bundles.device_id
""")  # noqa: S608 - names from this module
