"""Settings of the server side, from the environment (`E2EE_...`) or from code.

Owns: names, defaults and validity of the settings.
Does not know about: who uses them.
"""

import hashlib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from e2ee.errors import MalformedMessageError
from e2ee.limits import DAY_MS, SECOND_MS
from e2ee.wire.login_assertion import parse_origin
from keyserver.database import database_url, is_sqlite
from keyserver.key_set_fetch import check_key_set_url
from keyserver.loopback import is_loopback
from keyserver.repository.rate_limits import RateLimit, RequestLimits
from keyserver.secret_files import DEFAULT_DATABASE
from keyserver.service.claims import ClaimLimits

LOCAL_BUS = "local"
POSTGRESQL_BUS = "postgresql"

MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash."""


DATABASE_LIMITS = "database"

MIN_DIFFERENT = 8
"""Different characters in a secret. 32 random hex digits have fewer once in 28 million times."""
EXAMPLES = ("changeme", "placeholder", "yoursecret", "your256bitsecret", "replaceme", "replacewith", "insertsecret")
"""What stands in examples instead of a secret, without case and punctuation."""


def _origin(text: str) -> str:
    try:
        origin = parse_origin(text)
    except MalformedMessageError:
        raise ValueError("an origin is https://host[:port] in lower case, without path or default port") from None
    if origin.startswith("http://") and not is_loopback(urlsplit(origin).hostname or ""):
        raise ValueError("an origin is https://, except on this machine: clients refuse it otherwise")
    return origin


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"a secret is at least {MIN_SECRET_BYTES} bytes long and random")
    letters = "".join(each for each in text.lower() if each.isalnum())
    if len(set(text)) < MIN_DIFFERENT or any(example in letters for example in EXAMPLES) or _repeats(text):
        raise ValueError("a secret is random, and this one can be guessed: take `openssl rand -base64 32`")
    return value


def _repeats(text: str) -> bool:
    """Say whether a text is one shorter piece over and over."""
    return text in (text + text)[1:-1]


def _limits(text: str) -> str:
    if text != DATABASE_LIMITS and urlsplit(text).scheme not in ("redis", "rediss"):
        raise ValueError(f"rate limits are in the {DATABASE_LIMITS}, or a redis:// or rediss:// URL says where")
    return text


def _bus(text: str) -> str:
    if text not in (LOCAL_BUS, POSTGRESQL_BUS) and urlsplit(text).scheme not in ("redis", "rediss"):
        raise ValueError(f"the bus is {LOCAL_BUS}, {POSTGRESQL_BUS}, or a redis:// or rediss:// URL")
    return text


def _broker(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or "@" in parts.netloc or parts.path:
        raise ValueError("a broker's URL is mqtts://host[:port]")
    if parts.scheme == "mqtt" and not is_loopback(parts.hostname):
        raise ValueError("mqtt:// is plaintext, for loopback only; use mqtts://")
    return text


Origin = Annotated[str, AfterValidator(_origin)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
BrokerUrl = Annotated[str, AfterValidator(_broker)]
Positive = Annotated[int, Field(ge=1)]
PerSecond = Annotated[int, Field(ge=1, le=1000)]


class Settings(BaseSettings):
    """All settings. There is no default for any secret; `keyserver serve --dev` makes random ones."""

    model_config = SettingsConfigDict(env_prefix="E2EE_", extra="forbid", frozen=True, hide_input_in_errors=True)

    origin: Origin
    """How clients reach this server: https://host[:port]. Login assertions are bound to it."""
    other_origins: tuple[Origin, ...] = ()
    """Further names of the same server."""
    database: str = DEFAULT_DATABASE
    """Path of an SQLite file, or a postgresql:// URL."""
    bus: Annotated[str, AfterValidator(_bus), Field(repr=False)] = LOCAL_BUS
    """How the processes of one server hear of each other: `local` (there is one process), `postgresql` (through the
    database), or a redis:// or rediss:// URL."""
    token_secret: Secret
    """Signs device tokens (HS256). Every process of one server has the same."""
    migrate: bool = False
    """Bring the tables up to date at start. Always done on SQLite; elsewhere `keyserver migrate` is run on purpose."""

    mqtt_broker: BrokerUrl | None = None
    """The broker that devices may be reached through: mqtts://host[:port]. Without it there is no MQTT."""
    mqtt_user: str = "e2ee-bridge"
    """Our account at the broker, an administrator of its dynamic-security plugin."""
    mqtt_password: SecretStr | None = None
    mqtt_public_url: BrokerUrl | None = None
    """The broker as devices reach it, if that differs."""
    mqtt_ca_file: Path | None = None
    """The authority that the broker's certificate is from, PEM, if it is no public one."""

    browser_origins: tuple[Origin, ...] = ()
    """Pages on other origins whose scripts may ask this server (CORS). None by default."""
    behind_tls_proxy: bool = False
    """A proxy in front terminates TLS: this server may speak plaintext beyond loopback, to that proxy."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Addresses of these proxies. What they forward counts; with `behind_tls_proxy`, nobody else is let in."""
    tls_certificate: Path | None = None
    """Certificate chain, PEM, if this server speaks TLS itself. Read again on SIGHUP."""
    tls_key: Path | None = None
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Where `keyserver serve` serves GET /metrics for Prometheus, in plaintext; 0 picks a port, none by default."""
    metrics_host: str = "127.0.0.1"
    """Its address: one that only whoever watches the server can reach."""
    rate_limits: Annotated[str, AfterValidator(_limits), Field(repr=False)] = DATABASE_LIMITS
    """Where requests per user and per address are counted: in the `database`, or a redis:// or rediss:// URL."""

    host_jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = None
    """The one algorithm of the host application's tokens."""
    host_jwt_secret: Secret | None = None
    """For HS256."""
    host_jwt_public_key: str | None = None
    """For the others: a public key (RSA of 2,048 bits or more, P-256, Ed25519), PEM."""
    host_jwt_public_key_file: Path | None = None
    host_jwt_jwks_url: Annotated[str, AfterValidator(check_key_set_url)] | None = None
    """For the others: where the host application publishes its key set (RFC 7517); https, or this machine."""
    host_jwt_issuer: str | None = None
    host_jwt_audience: str | None = None
    host_jwt_leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 10

    token_seconds: Annotated[int, Field(ge=60, le=3600)] = 15 * 60
    login_days: Annotated[int, Field(ge=1, le=30)] = 30
    request_limit: Annotated[int, Field(ge=1024)] = 64 * 1024
    """Largest request body in bytes."""
    prekey_upload_limit: Annotated[int, Field(ge=1024)] = 512 * 1024
    """Largest body of a prekey upload in bytes: 100 KEM prekeys take about 230 KiB."""

    user_burst: Positive = 1_000
    user_per_second: PerSecond = 10
    """Requests of one user: this many at once, then so many a second."""
    address_burst: Positive = 5_000
    address_per_second: PerSecond = 100
    """Requests from one address (IPv6: one /64), new connections of the relay included. Many users may share one."""
    claim_pair_burst: Positive = 30
    claim_pair_seconds: Positive = 60
    """One claimer's claims from one user: this many at once, then one each so many seconds."""
    claim_claimer_burst: Positive = 300
    claim_claimer_seconds: Positive = 2
    """One claimer's claims from everybody."""
    claim_target_burst: Positive = 500
    claim_target_seconds: Positive = 3
    """Everybody's claims from one user."""
    list_burst: Positive = 60
    list_seconds: Positive = 120
    """New device lists of one user."""
    upload_burst: Positive = 30
    upload_seconds: Positive = 60
    """Uploads of new prekeys by one device."""
    register_burst: Positive = 20
    register_seconds: Positive = 600
    """New devices of one user."""
    link_burst: Positive = 10
    link_seconds: Positive = 120
    """New links of one user."""

    push_delay_seconds: Annotated[float, Field(ge=0, le=60)] = 3.0
    """An envelope that is fetched within this time wakes nobody."""
    push_hosts: tuple[str, ...] = ()
    """Further hosts that Web Push may speak to, and those below them: your UnifiedPush server. `host:port`: only it."""
    push_ca_file: Path | None = None
    """Certificates, PEM, that push services are trusted by beside the public ones."""
    vapid_key_file: Path | None = None
    """A private key of P-256, PEM: serves Web Push. `openssl ecparam -name prime256v1 -genkey -noout` makes one."""
    vapid_subject: str | None = None
    """mailto: or https: URL by which a push service reaches the operator."""
    fcm_account_file: Path | None = None
    """A service account's JSON: serves Firebase Cloud Messaging."""
    apns_key_file: Path | None = None
    """A .p8 file: serves Apple's push service, with the next three."""
    apns_key_id: str | None = None
    apns_team_id: str | None = None
    apns_topic: str | None = None
    apns_sandbox: bool = False

    xmpp_component: str | None = None
    """The relay's JID as a component of an XMPP server: serves XMPP, with the next two."""
    xmpp_secret: Secret | None = None
    """The component's secret, as the XMPP server's configuration has it."""
    xmpp_domains: frozenset[str] = frozenset()
    """The domains whose users are served."""
    xmpp_host: str = "127.0.0.1"
    """Where the XMPP server takes components: the stream is not encrypted, so it is this machine."""
    xmpp_port: Annotated[int, Field(ge=1, le=65535)] = 5347

    @field_validator("database")
    @classmethod
    def _database(cls, value: str) -> str:
        database_url(value)
        return value

    @model_validator(mode="after")
    def _distinct_secrets(self) -> Self:
        if self.host_jwt_secret is not None and self.host_jwt_secret == self.token_secret:
            # Else whoever may sign for users could sign device tokens.
            raise ValueError("token_secret and host_jwt_secret must differ")
        return self

    @model_validator(mode="after")
    def _whole_certificate(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self

    @model_validator(mode="after")
    def _complete_push(self) -> Self:
        if (self.vapid_key_file is None) != (self.vapid_subject is None):
            raise ValueError("vapid_key_file and vapid_subject go together")
        apns = self.apns_key_file, self.apns_key_id, self.apns_team_id, self.apns_topic
        if any(apns) and not all(apns):
            raise ValueError("apns_key_file, apns_key_id, apns_team_id and apns_topic go together")
        return self

    @model_validator(mode="after")
    def _complete_xmpp(self) -> Self:
        parts = self.xmpp_component, self.xmpp_secret, self.xmpp_domains
        if any(parts) and not all(parts):
            raise ValueError("xmpp_component, xmpp_secret and xmpp_domains go together")
        if not is_loopback(self.xmpp_host):
            raise ValueError("xmpp_host is not a loopback address, and a component's stream is not encrypted")
        return self

    @model_validator(mode="after")
    def _bus_of_the_database(self) -> Self:
        if self.bus == POSTGRESQL_BUS and is_sqlite(database_url(self.database)):
            raise ValueError("the bus is postgresql, and the database is not")
        return self

    @model_validator(mode="after")
    def _account_at_the_broker(self) -> Self:
        if self.mqtt_broker is not None and self.mqtt_password is None:
            raise ValueError("mqtt_broker needs mqtt_password")
        return self

    @property
    def origins(self) -> tuple[str, ...]:
        """All names of this server; a login assertion is bound to one of them."""
        return (self.origin, *self.other_origins)

    def own_name(self, prefix: str) -> str:
        """Make a name, in Redis or for a lock, that two servers do not share."""
        return f"{prefix}_{hashlib.sha256(self.origin.encode()).hexdigest()[:16]}"

    @property
    def proxy_is_unknown(self) -> bool:
        """There is a proxy, and its address was not said."""
        return self.behind_tls_proxy and not self.trusted_proxies

    @property
    def token_ms(self) -> int:
        """Lifetime of a device token in milliseconds."""
        return self.token_seconds * SECOND_MS

    @property
    def login_ms(self) -> int:
        """Longest life of a login in milliseconds."""
        return self.login_days * DAY_MS

    @property
    def requests(self) -> RequestLimits:
        """Limits on requests of any kind."""
        return RequestLimits(
            per_user=RateLimit(self.user_burst, SECOND_MS // self.user_per_second),
            per_address=RateLimit(self.address_burst, SECOND_MS // self.address_per_second),
        )

    @property
    def claims(self) -> ClaimLimits:
        """Limits on claiming bundles."""
        return ClaimLimits(
            per_pair=RateLimit(self.claim_pair_burst, self.claim_pair_seconds * SECOND_MS),
            per_claimer=RateLimit(self.claim_claimer_burst, self.claim_claimer_seconds * SECOND_MS),
            per_target=RateLimit(self.claim_target_burst, self.claim_target_seconds * SECOND_MS),
        )

    @property
    def lists(self) -> RateLimit:
        """Limit on new device lists of one user."""
        return RateLimit(self.list_burst, self.list_seconds * SECOND_MS)

    @property
    def uploads(self) -> RateLimit:
        """Limit on uploads of new prekeys by one device."""
        return RateLimit(self.upload_burst, self.upload_seconds * SECOND_MS)

    @property
    def links(self) -> RateLimit:
        """Limit on new links of one user."""
        return RateLimit(self.link_burst, self.link_seconds * SECOND_MS)

    @property
    def registrations(self) -> RateLimit:
        """Limit on new devices of one user."""
        return RateLimit(self.register_burst, self.register_seconds * SECOND_MS)
