"""Endpoints for whoever watches the server.

Owns: /healthz (the process answers) and /readyz (the database answers too).
Does not know about: the services.
"""

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from keyserver.deps import ContextDep
from keyserver.postgresql import DatabaseUnavailableError
from keyserver.problems import NotReadyProblem
from keyserver.routes.guarded import problem_responses
from keyserver.schemas import HealthOut


def add_routes(router: APIRouter) -> None:
    """Put the endpoints on a router."""
    router.add_api_route("/healthz", healthy, methods=["GET"], operation_id="healthy")
    router.add_api_route("/readyz", ready, methods=["GET"], operation_id="ready", responses={**problem_responses(503)})


async def healthy() -> HealthOut:
    """Answer, if the process does."""
    return HealthOut(status="ok")


async def ready(context: ContextDep) -> HealthOut:
    """Answer, if the database does."""
    try:
        await context.database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())
    except (DatabaseUnavailableError, SQLAlchemyError, RuntimeError):
        raise NotReadyProblem from None
    return HealthOut(status="ok")
