"""Endpoints: keep what a user needs to recover an account.

Owns: the translation between HTTP and the service.
Does not know about: the rules.
"""

from fastapi import APIRouter

from e2ee.wire.codec import from_base64url, to_base64url
from keyserver.deps import ContextDep, DeviceDep, HostDep
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import RecoveryBlobIn, RecoveryBlobOut


def add_routes(router: APIRouter) -> None:
    """Put the endpoints on a router."""
    router.add_api_route(
        "/v1/recovery-blob",
        store_recovery_blob,
        methods=["PUT"],
        operation_id="storeRecoveryBlob",
        responses={**problem_responses(401, 409, 422, 429)},
    )
    router.add_api_route(
        "/v1/recovery-blob",
        read_recovery_blob,
        methods=["GET"],
        operation_id="readRecoveryBlob",
        responses={**problem_responses(401)},
    )


async def store_recovery_blob(body: RecoveryBlobIn, device: DeviceDep, context: ContextDep) -> RecoveryBlobOut:
    """Store the blob of the token's user in the place of the one before; null deletes it."""
    await context.recovery.store(device, None if body.blob is None else from_base64url(body.blob))
    return RecoveryBlobOut(blob=body.blob)


async def read_recovery_blob(caller: HostDep, context: ContextDep) -> RecoveryBlobOut:
    """Return the blob of the token's user; null if there is none."""
    found = await context.recovery.blob(caller.user_id)
    return RecoveryBlobOut(blob=None if found is None else to_base64url(found))
