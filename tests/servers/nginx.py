"""nginx for tests, in front of several nodes, configured as docs/operations.md says.

Owns: filling the configuration of the document in.
Does not know about: what the nodes serve.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import Server, program

_DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
_FRAME = """
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
daemon off;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{site}
}}
"""


class Nginx(Server):
    """The document's configuration, with the tests' ports and without TLS."""

    def __init__(self, *nodes: int, port: int) -> None:
        super().__init__(port)
        (site,) = re.findall(r"```nginx\n(.*?)```", _DOCUMENT.read_text(), re.S)
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in nodes)
        site = re.sub(r"(?m)^    server 10\..*\n", "", site).replace(
            "upstream e2ee_nodes {", f"upstream e2ee_nodes {{\n{servers}"
        )
        site = re.sub(r"(?m)^    ssl_.*\n", "", site).replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port};")
        (self.directory / "nginx.conf").write_text(_FRAME.format(directory=self.directory, site=site))

    def command(self) -> Sequence[str | Path]:
        nginx = program("nginx", "nginx-light", Path("/usr/sbin/nginx"))
        return nginx, "-e", self.directory / "error.log", "-p", self.directory, "-c", self.directory / "nginx.conf"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
