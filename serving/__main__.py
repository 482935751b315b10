"""`python -m serving`: the feature server on 127.0.0.1, port FOREBAY_HTTP_PORT (default 6566; 0 takes a free one)."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

import uvicorn

from forebay.errors import ConfigError, ForebayError
from forebay.settings import Settings
from serving.app import make_app

HOST = "127.0.0.1"
PORT = 6566
CONNECTIONS_MAX = 512
"""Beyond it requests get 503 at once, instead of waiting for a thread."""
KEEP_ALIVE_S = 30


def main() -> int:
    """Serve until told to stop; 2 where it cannot begin."""
    try:
        _check_arguments(sys.argv[1:])
        listening = _listen(os.environ.get("FOREBAY_HTTP_PORT", ""))
        app = make_app(Settings.from_env())
    except ForebayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
    )
    print(f"Serving features on http://{HOST}:{listening.getsockname()[1]} (Ctrl-C ends)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again when it has shut down
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _check_arguments(given: list[str]) -> None:
    if given:
        raise ConfigError(f"forebay serve takes no arguments, but got {given[0]!r}; the port is FOREBAY_HTTP_PORT")


def _listen(text: str) -> socket.socket:
    """A socket on the port that the environment names. Raises `ConfigError`."""
    if text and not (text.isdecimal() and int(text) < 65_536):
        raise ConfigError(f"FOREBAY_HTTP_PORT is {text!r}; expected a port from 0 (any free one) to 65535")
    port = int(text) if text else PORT
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # from here on a request waits, before it would be refused
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Port {port} of {HOST} cannot be used ({error.strerror}); set FOREBAY_HTTP_PORT to a free one"
        ) from None
    return listening


if __name__ == "__main__":
    sys.exit(main())
