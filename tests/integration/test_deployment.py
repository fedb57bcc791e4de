"""The processes of deploy/compose.yaml without containers: PostgreSQL, Redis, TLS, secrets from files, signals."""

import asyncio
import importlib.util
import resource
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from keyserver.client import ClientOptions, KeyServerClient
from tests.certificates import Certificate, make_certificate
from tests.databases import postgresql
from tests.keyserver_process import join, real_device
from tests.keyserver_world import HOST_SECRET, TOKEN_SECRET
from tests.server_process import ServerProcess
from tests.servers.redis import Redis

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, Certificate]]:
    certificate = make_certificate(tmp_path)
    secrets = tmp_path / "secrets"
    await asyncio.to_thread(subprocess.run, [DEPLOY / "secrets.sh", secrets], check=True, capture_output=True)
    with Redis() as redis:
        for name, value in (
            ("e2ee_database", postgresql().new_database()),
            ("e2ee_rate_limits", redis.url),
            ("e2ee_host_jwt_secret", HOST_SECRET),
        ):
            file = secrets / name
            file.unlink(missing_ok=True)
            file.write_text(value + "\n")
        process = ServerProcess(
            tmp_path,
            secrets_directory=str(secrets),
            bus="postgresql",
            migrate="true",
            tls_certificate=str(certificate.certificate),
            tls_key=str(certificate.key),
            metrics_port="0",
            user_burst="40",
            user_per_second="1",
        )
        # What the process would otherwise have in its environment comes from the files.
        process.forget("DATABASE", "TOKEN_SECRET", "HOST_JWT_SECRET")
        await asyncio.to_thread(process.start)
        yield process, certificate
        await asyncio.to_thread(process.kill)


async def test_a_device_joins_is_limited_by_redis_and_the_server_reloads_and_drains(
    site: tuple[ServerProcess, Certificate],
) -> None:
    process, certificate = site
    context = ssl.create_default_context(cafile=str(certificate.authority))
    async with httpx.AsyncClient(verify=context) as http:
        alice = real_device("alice")

        async def host_token() -> str:
            return process.token("alice")

        client = KeyServerClient(
            process.url,
            alice.address,
            host_token=host_token,
            sign=alice.signing.sign,
            next_counter=alice.next_counter,
            http=http,
            options=ClientOptions(timeout_seconds=30, attempts=1),
        )
        await join(client, alice)
        assert (await client.publish_prekeys(alice.upload(2))).one_time == 2
        headers = {"Authorization": f"Bearer {await client.device_token()}"}
        statuses = [(await http.get(f"{process.url}/v1/prekeys", headers=headers)).status_code for _ in range(60)]
        assert {*statuses} == {200, 429}
        process.signal(signal.SIGHUP)
        await process.logged("was loaded again")
        assert (await http.get(f"{process.url}/readyz")).status_code == 200
    assert await asyncio.to_thread(process.stop) == 0
    log = process.log.read_text()
    assert TOKEN_SECRET not in log
    assert HOST_SECRET not in log


async def test_a_reload_without_a_certificate_ends_nothing(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    await asyncio.to_thread(process.start)
    try:
        process.signal(signal.SIGHUP)
        async with httpx.AsyncClient() as http:
            for _ in range(3):
                assert (await http.get(f"{process.url}/healthz")).status_code == 200
        assert await asyncio.to_thread(process.stop) == 0
    finally:
        process.kill()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_a_server_that_ran_out_of_files_takes_connections_again_and_did_not_fill_its_log(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    process.start()
    try:
        if uvloop_is_there():
            assert "uvloop" in Path(f"/proc/{process.pid}/maps").read_text()
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, before[1]))  # it has more open already
        with socket.create_connection(("127.0.0.1", process.port)) as waiting:
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            waiting.settimeout(0.3)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            waiting.settimeout(10)
            assert waiting.recv(12) == b"HTTP/1.1 200"
        assert process.answers()
        assert process.stop() == 0
        if uvloop_is_there():  # asyncio's loop writes thousands of lines in that time
            assert process.log.stat().st_size < 10_000
    finally:
        process.kill()


def uvloop_is_there() -> bool:
    return importlib.util.find_spec("uvloop") is not None
