"""Endpoints: publish prekeys, count them, claim bundles.

Owns: the translation between HTTP and the services.
Does not know about: the rules.
"""

from typing import Final, NamedTuple, TypedDict, TypeVar

from fastapi import APIRouter

from e2ee.errors import MalformedMessageError
from e2ee.wire.codec import Reader, from_base64url, to_base64url
from e2ee.wire.identifiers import DeviceAddress, DeviceId, parse_user_id
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, OneTimePreKey, SignedPreKey
from keyserver.deps import Context, ContextDep, DeviceDep
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import ClaimIn, ClaimOut, PreKeyCountsOut, PreKeysIn
from keyserver.service.claims import Doubt, Question
from keyserver.service.prekeys import Counts, PublishedPreKey

P = TypeVar("P", SignedPreKey, OneTimePreKey, KemPreKey)

CLAIMS_PATH: Final = "/v1/claims"
CLAIMS_OPERATION: Final = "claimBundles"


class ClaimAnswer(TypedDict):
    """What `ClaimOut` is made of."""

    device_list: str | None
    bundles: list[str]


def add_upload_route(router: APIRouter) -> None:
    """Put the one endpoint with large bodies on a router."""
    router.add_api_route(
        "/v1/prekeys",
        publish_prekeys,
        methods=["PUT"],
        operation_id="publishPreKeys",
        responses={**problem_responses(401, 409, 422, 429)},
    )


def add_routes(router: APIRouter) -> None:
    """Put the other endpoints on a router."""
    router.add_api_route(
        "/v1/prekeys",
        count_prekeys,
        methods=["GET"],
        operation_id="countPreKeys",
        responses={**problem_responses(401)},
    )
    router.add_api_route(
        CLAIMS_PATH,
        claim_bundles,
        methods=["POST"],
        operation_id=CLAIMS_OPERATION,
        responses={**problem_responses(401, 409, 422, 429)},
    )


async def publish_prekeys(body: PreKeysIn, device: DeviceDep, context: ContextDep) -> PreKeyCountsOut:
    """Publish prekeys of the token's device: all of them or none. The same bytes again change nothing."""
    return _counts(await context.prekeys.publish(device, _upload(body)))


async def count_prekeys(device: DeviceDep, context: ContextDep) -> PreKeyCountsOut:
    """Return what the token's device offers."""
    return _counts(await context.prekeys.counts(device))


async def claim_bundles(body: ClaimIn, device: DeviceDep, context: ContextDep) -> ClaimOut:
    """Claim one bundle per active device of a user. Consumes one-time prekeys, hence POST."""
    return ClaimOut(**await answer_claim(context, device, read_claim(body)))


class Claim(NamedTuple):
    """What a claim asks, under which id."""

    question: Question
    request_id: bytes


def read_claim(body: ClaimIn) -> Claim:
    """Read a claim's body.

    Raises:
        MalformedMessageError: an id in it is none.
    """
    ids = None if body.device_ids is None else frozenset(DeviceId.from_hex(each) for each in body.device_ids)
    return Claim(Question(parse_user_id(body.user_id), ids), bytes.fromhex(body.request_id))


async def answer_claim(
    context: Context, device: DeviceAddress, claim: Claim, doubt: Doubt | None = None
) -> ClaimAnswer:
    """Claim, and return the members of the answer's JSON."""
    answer = await context.claims.claim(device, claim.question, claim.request_id, doubt)
    context.metrics.claimed(answer.bundles)
    return {
        "device_list": None if answer.device_list is None else to_base64url(answer.device_list),
        "bundles": [to_base64url(bundle.encode()) for bundle in answer.bundles],
    }


def _upload(body: PreKeysIn) -> list[PublishedPreKey]:
    upload: list[PublishedPreKey] = []
    if body.signed_prekey is not None:
        upload.append(_decode(SignedPreKey, body.signed_prekey))
    if body.last_resort is not None:
        upload.append(_kem(body.last_resort, KemPreKeyKind.LAST_RESORT))
    upload += (_decode(OneTimePreKey, each) for each in body.one_time_prekeys)
    upload += (_kem(each, KemPreKeyKind.ONE_TIME) for each in body.one_time_kem_prekeys)
    return upload


def _decode(kind: type[P], text: str) -> P:
    reader = Reader(from_base64url(text))
    prekey = kind.decode(reader)
    reader.finish()
    return prekey


def _kem(text: str, kind: KemPreKeyKind) -> KemPreKey:
    prekey = _decode(KemPreKey, text)
    if prekey.kind is not kind:
        raise MalformedMessageError("kind of KEM prekey")
    return prekey


def _counts(counts: Counts) -> PreKeyCountsOut:
    return PreKeyCountsOut(
        one_time=counts.one_time,
        one_time_kem=counts.one_time_kem,
        signed_prekey_id=counts.signed_prekey_id,
        last_resort_id=counts.last_resort_id,
    )
