"""What the server counts for Prometheus.

Owns: names and meaning of the metrics. No label holds a user, a device, an address or anything else of somebody's: each
has a few values that the program knows beforehand.
Does not know about: HTTP (metrics_server.py), what is counted for limits (allowances.py).

Counters and histograms are of this process; gauges that are read from the database are the same on every node.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from sqlalchemy import Connection

from e2ee.wire.prekey_bundle import KemPreKeyKind
from keyserver.database import Database
from keyserver.repository.claims import BundleBodies

SURVEY_SECONDS: Final = 30.0
"""Between two looks at the database."""

_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_DELIVERY_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 600, 3_600, 86_400)

_log = logging.getLogger("keyserver")

Numbers = dict[str, int]
"""Names of gauges without their prefix, and their values."""


@final
class Metrics:
    """All metrics of one server in one process. Implements `Meter` of the relay."""

    def __init__(self, live_connections: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Histogram(
            "e2ee_request_seconds",
            "Requests to the key service",
            ["operation", "status"],
            registry=registry,
            buckets=_REQUEST_SECONDS,
        )
        self._observing: dict[tuple[str, int], Callable[[float], None]] = {}
        self._refusals = Counter(
            "e2ee_refusals", "Requests and frames answered by an error", ["side", "code"], registry=registry
        )
        self._claims = Counter("e2ee_claims", "Claims answered, repeated ones included", registry=registry)
        self._bundles = Counter(
            "e2ee_claimed_bundles",
            "Bundles handed out: one_time=no had run out of one-time prekeys, kem=last_resort of one-time KEM prekeys",
            ["one_time", "kem"],
            registry=registry,
        )
        self._counting: dict[tuple[str, str], Callable[[], None]] = {}
        self._delivery = Histogram(
            "e2ee_delivery_seconds",
            "From storing an envelope to handing it to a connection of its recipient",
            registry=registry,
            buckets=_DELIVERY_SECONDS,
        )
        connections = Gauge("e2ee_connections", "Devices connected to this process", registry=registry)
        connections.set_function(live_connections)
        ProcessCollector(registry=registry)
        self._gauges: dict[str, Gauge] = {}
        self.is_read = True
        """Somebody has asked since the last survey; at the start, somebody may."""

    # --- What the key service says

    def answered(self, operation: str, status: int, code: str | None, seconds: float) -> None:
        """A request to an endpoint was answered; `code` is the problem's, if it was one."""
        # Looking a labelled one up takes as long as counting.
        observe = self._observing.get((operation, status))
        if observe is None:
            observe = self._observing[operation, status] = self._requests.labels(operation, str(status)).observe
        observe(seconds)
        if code is not None:
            self._refusals.labels("api", code).inc()

    def claimed(self, bundles: Sequence[BundleBodies]) -> None:
        """A claim was answered with these bundles."""
        self._claims.inc()
        for bundle in bundles:
            one_time = "no" if bundle.one_time_prekey is None else "yes"
            kem = "one_time" if bundle.kem_prekey[0] == KemPreKeyKind.ONE_TIME else "last_resort"
            count = self._counting.get((one_time, kem))
            if count is None:
                count = self._counting[one_time, kem] = self._bundles.labels(one_time, kem).inc
            count()

    def turned_away(self, code: str) -> None:
        """A request was refused before any endpoint saw it."""
        self._refusals.labels("front", code).inc()

    # --- What the relay says

    def delivered(self, waited_ms: int) -> None:
        self._delivery.observe(max(0, waited_ms) / 1000)

    def refused(self, code: str) -> None:
        self._refusals.labels("relay", code).inc()

    # --- What the database says

    def surveyed(self, numbers: Numbers) -> None:
        """Set the gauges."""
        self.is_read = False
        for name, value in numbers.items():
            if name not in self._gauges:
                text = f"{name.replace('_', ' ').capitalize()}, of the whole server"
                self._gauges[name] = Gauge(f"e2ee_{name}", text, registry=self.registry)
            self._gauges[name].set(value)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        self.is_read = True
        return generate_latest(self.registry)


async def keep_surveying(database: Database, survey: Callable[[Connection], Numbers], metrics: Metrics) -> None:
    """Look at the database every half minute, if somebody reads the metrics, until cancelled."""
    while True:
        try:
            if metrics.is_read:
                metrics.surveyed(await database.read(survey))
        except Exception as error:  # noqa: BLE001 - of any driver; the next round looks again
            _log.error("the survey failed and is tried again later: %s", type(error).__name__)
        await asyncio.sleep(SURVEY_SECONDS)
