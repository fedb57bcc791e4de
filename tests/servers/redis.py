"""Redis for tests. Does not know about: what is published."""

from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import Server, program


class Redis(Server):
    """Keeps nothing on disk."""

    def command(self) -> Sequence[str | Path]:
        options = "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"
        return program("redis-server", "redis-server"), *options, "--dir", self.directory

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"
