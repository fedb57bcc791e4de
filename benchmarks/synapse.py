"""Synapse, the Matrix homeserver, as a process beside ours: its `/keys/claim` is what claims are measured against.

Owns: its environment, its configuration, its people and their keys.
Does not know about: our server. Synapse is under the AGPL: it runs as a program of its own, from an environment of its
own, and nothing here imports it.

The configuration is the generated one as far as it concerns claims: PostgreSQL with the documented pool, one process.
Its rate limits are raised as ours are, and like ours it logs warnings only.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, final

import httpx
from sqlalchemy.engine import make_url

from benchmarks.http_load import request
from tests.servers.process import Server

_ROOT: Final = Path(__file__).parents[1]
_PINS: Final = _ROOT / "constraints-peers.txt"
_ENVIRONMENT: Final = Path(sys.prefix) / "peers"
_HOST: Final = "bench.localhost"
_ALGORITHM: Final = "signed_curve25519"
_GENEROUS: Final = {"per_second": 1_000_000, "burst_count": 1_000_000}


class Person(NamedTuple):
    """A user with one device."""

    user_id: str
    device_id: str
    token: str


class Claims(NamedTuple):
    """Requests for each claimer, and the target's user id of each."""

    requests: Sequence[Sequence[bytes]]


def python() -> Path:
    """Install Synapse as pinned, unless it is there; return the interpreter of its environment."""
    interpreter, mark = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / hashlib.sha256(_PINS.read_bytes()).hexdigest()
    if not mark.exists():
        print("  (installing Synapse into an environment of its own)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", _ENVIRONMENT], check=True)
        pins = "--require-hashes", "--only-binary", ":all:", "-r", _PINS
        subprocess.run([interpreter, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *pins], check=True)
        mark.touch()
    return interpreter


@final
class Synapse(Server):
    """One homeserver on a database of PostgreSQL."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self._secret = secrets.token_hex(16)
        self._python = python()
        self._configuration = self.directory / "homeserver.yaml"
        self._configuration.write_text(json.dumps(self._settings(database)))  # JSON is YAML
        self._configuration.chmod(0o644)
        (self.directory / "log.yaml").write_text(json.dumps({"version": 1, "root": {"level": "WARNING"}}))
        (self.directory / "signing.key").write_text(f"ed25519 a_1 {_base64(secrets.token_bytes(32))}\n")
        (self.directory / "signing.key").chmod(0o644)

    def command(self) -> Sequence[str | Path]:
        return self._python, "-m", "synapse.app.homeserver", "-c", self._configuration

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    async def people(self, prefix: str, number: int) -> list[Person]:
        """Register users."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            return [await self._register(http, f"{prefix}{each}") for each in range(number)]

    async def offer(self, owners: Sequence[Person], keys: int, random: Random) -> None:
        """Upload one-time keys of each."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            await asyncio.gather(*(self._offer(http, owner, keys, random) for owner in owners))

    @staticmethod
    def claim(claimer: Person, target: Person) -> bytes:
        """Write a claim of one one-time key."""
        body = {"one_time_keys": {target.user_id: {target.device_id: _ALGORITHM}}}
        return request("POST", "/_matrix/client/v3/keys/claim", json.dumps(body).encode(), claimer.token)

    def _settings(self, database: str) -> dict[str, Any]:
        url = make_url(database)
        arguments = {
            "user": url.username,
            "password": url.password,
            "host": url.host,
            "port": url.port,
            "dbname": url.database,
            "cp_min": 5,
            "cp_max": 10,
        }
        return {
            "server_name": _HOST,
            "listeners": [
                {
                    "port": self.port,
                    "type": "http",
                    "bind_addresses": ["127.0.0.1"],
                    "resources": [{"names": ["client"], "compress": False}],
                }
            ],
            "database": {"name": "psycopg2", "args": arguments},
            "log_config": str(self.directory / "log.yaml"),
            "signing_key_path": str(self.directory / "signing.key"),
            "media_store_path": str(self.directory / "media"),
            "registration_shared_secret": self._secret,
            "macaroon_secret_key": secrets.token_hex(16),
            "form_secret": secrets.token_hex(16),
            "bcrypt_rounds": 4,
            "report_stats": False,
            "trusted_key_servers": [],
            "rc_message": _GENEROUS,
            "rc_registration": _GENEROUS,
            "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _GENEROUS),
        }

    async def _register(self, http: httpx.AsyncClient, name: str) -> Person:
        path = "/_synapse/admin/v1/register"
        nonce = (await http.get(path)).json()["nonce"]
        password = secrets.token_hex(8)
        signed = b"\0".join(each.encode() for each in (nonce, name, password, "notadmin"))
        mac = hmac.new(self._secret.encode(), signed, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": password, "admin": False, "mac": mac}
        answer = (await http.post(path, json=body)).raise_for_status().json()
        return Person(answer["user_id"], answer["device_id"], answer["access_token"])

    async def _offer(self, http: httpx.AsyncClient, owner: Person, keys: int, random: Random) -> None:
        one_time = {f"{_ALGORITHM}:{number:06}": _signed(owner, random) for number in range(keys)}
        headers = {"Authorization": f"Bearer {owner.token}"}
        path = "/_matrix/client/v3/keys/upload"
        (await http.post(path, json={"one_time_keys": one_time}, headers=headers)).raise_for_status()


def _signed(owner: Person, random: Random) -> dict[str, Any]:
    # A key and a signature in their form: the server looks at neither.
    signature = {owner.user_id: {f"ed25519:{owner.device_id}": _base64(random.randbytes(64))}}
    return {"key": _base64(random.randbytes(32)), "signatures": signature}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")
