"""A schema registry of the tests' own: the few HTTP endpoints that serializers and deserializers ask for.

Invariants: it listens on 127.0.0.1 only and keeps schemas in memory; closed and opened again it is on the same port
with what it had. A schema of Protobuf is kept as it is sent: the serialized descriptor. The universal name of a schema
is its number.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID


class SchemaRegistry:
    """A registry; as a context manager it runs within the block."""

    def __init__(self) -> None:
        self.schemas: list[dict[str, Any]] = []
        self.status = 200
        """What it answers when it is not 200."""
        self.hollow = ""
        """Paths that begin so are answered without a schema."""
        self.asked: list[str] = []
        self._server = self._start(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """The status and body of a request."""
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"error_code": self.status, "message": "not now"}
        if self.hollow and path.startswith(self.hollow):
            return 200, {}
        parts = path.strip("/").split("/")
        if parts[0] == "schemas":
            number = int(parts[2]) if parts[1] == "ids" else UUID(parts[2]).int
            if 1 <= number <= len(self.schemas):
                return 200, self.schemas[number - 1]
            return 404, {"error_code": 40403, "message": "Schema not found"}
        subject = parts[1]
        if body is not None:
            schema = {"schemaType": "AVRO", **body, "subject": subject}
            if schema not in self.schemas:
                self.schemas.append(schema)
            return 200, {**schema, "id": self.schemas.index(schema) + 1, "version": 1}
        found = [n for n, schema in enumerate(self.schemas) if schema["subject"] == subject]
        if not found:
            return 404, {"error_code": 40401, "message": "Subject not found"}
        return 200, {**self.schemas[found[-1]], "id": found[-1] + 1, "version": 1}

    def close(self) -> None:
        """End it; its schemas stay for ``reopen``."""
        self._server.shutdown()
        self._server.server_close()

    def reopen(self) -> None:
        """Come back on the same port."""
        self._server = self._start(self._server.server_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, port: int) -> ThreadingHTTPServer:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(None)

            def do_POST(self) -> None:
                self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _reply(self, body: dict[str, Any] | None) -> None:
                status, said = registry.answer(urlsplit(self.path).path, body)
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as its parent has it
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server
