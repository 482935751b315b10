"""The connection to the online store, and what its failures are called.

`connect_online` is the only place that opens one, of a server or, where that is a node of a Redis Cluster, of all of
its nodes; `translated` is the only place that turns redis-py's errors into Forebay's. A store that cannot be reached is
one clear line: no secret in it, no stack of retries behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AskError, TryAgainError
from redis.retry import Retry

from forebay.errors import ConfigError, StoreError, StoreMovingError, StoreUnavailableError
from forebay.online.cluster import ELSEWHERE, Cluster
from forebay.settings import EMBEDDED, Settings, check_online_url

ONLINE_URL = "FOREBAY_ONLINE_URL"
CONNECT_TIMEOUT_S = 5.0
"""Until there is a connection, and until a first PING is answered, which waits for nothing."""
REPLY_TIMEOUT_S = 15.0
"""The longest command is the EXEC of one chunk of a publication, some milliseconds: beyond this the server hangs."""
LOADING = Retry(ExponentialBackoff(cap=0.5, base=0.02), 64, supported_errors=(redis.BusyLoadingError,))
"""A server that begins reads its data first, for some seconds a gigabyte: half a minute is waited."""
UNWRITABLE = (redis.OutOfMemoryError, redis.ReadOnlyError)
UNWRITABLE_CODES = ("MISCONF", "OOM ", "READONLY", "NOREPLICAS")
"""How a server begins to say that it takes no writes: its disk or its memory is full, or it is no primary any more."""
QUOTING = ("caused error: ", "because of: ")
"""What stands before that in errors of a pipeline (redis-py's) and of an EXEC."""
RECONNECTS = 1
"""A pooled connection may have died with a server that is back by now; one new attempt tells."""
MOVING = ("ASK ", "TRYAGAIN")
"""How a node begins to say that keys of a slot are on two nodes."""


def connect_online(settings: Settings) -> redis.Redis:
    """A client of the online store; `embedded` starts the deployment's own server if it doesn't run.

    Of a node of a cluster it is a client of all nodes; a URL may name several, of which the first that answers tells
    the others. Raises `StoreUnavailableError` where none can be reached, `ConfigError` where the URL cannot be one.
    """
    if settings.online_url == EMBEDDED:
        from forebay.online.embedded import start_embedded

        url = start_embedded(settings)
    else:
        check_online_url(url := settings.online_url)
    *others, last = named_servers(url)
    for one in others:
        with suppress(StoreUnavailableError):
            return _connected(one, of_several=True)
    return _connected(last, of_several=bool(others))


def named_servers(url: str) -> list[str]:
    """A URL for each of the servers that one names.

    >>> named_servers("redis://ann:a,b@one:6379,two:6380/0")
    ['redis://ann:a,b@one:6379/0', 'redis://ann:a,b@two:6380/0']
    """
    with suppress(ValueError):  # what cannot be read as a URL is refused where one connects
        parts = urlsplit(url)
        who, at, places = parts.netloc.rpartition("@")
        if "," not in places:
            return [url]
        return [urlunsplit(parts._replace(netloc=f"{who}{at}{place.strip()}")) for place in places.split(",")]
    return [url]


def _connected(url: str, *, of_several: bool) -> redis.Redis:
    """A client of one server that was named, or of the cluster that it is a node of."""
    _greet(url)
    client = _client(url)
    with translated(client):
        if is_clustered(client):
            return _cluster(url, client)
    if of_several:
        raise ConfigError(
            f"FOREBAY_ONLINE_URL names several servers, and Redis at {address(client)} is no node of a Redis Cluster. "
            "Name one server, or nodes of one cluster"
        )
    return client


def _greet(url: str) -> None:
    """See that the server answers, soon, once it has loaded its data: one that hangs is known before anything waits
    for a reply of it for long.

    One that cannot write, such as one whose disk is full, still answers reads.
    """
    client = _client(url, Retry(NoBackoff(), RECONNECTS, (redis.ConnectionError,)), CONNECT_TIMEOUT_S)
    with closing(client), translated(client):
        try:
            LOADING.call_with_retry(client.ping, lambda error: None)
        except redis.ResponseError as error:
            if not str(error).startswith("MISCONF"):
                raise


def is_clustered(client: redis.Redis) -> bool:
    """Whether the server is a node of a cluster; who may not ask (`INFO` of an ACL) takes it for one server."""
    try:
        return bool(client.info("cluster").get("cluster_enabled"))
    except redis.ResponseError:
        return False


def _cluster(url: str, client: redis.Redis) -> Cluster:
    """A client of all nodes. Raises `ConfigError` for a URL that can be of one server only."""
    known = client.connection_pool.connection_kwargs
    if "path" in known or known.get("db"):
        what = "a unix socket" if "path" in known else f"database {known['db']}"
        raise ConfigError(
            f"Redis at {address(client)} is a node of a Redis Cluster, and FOREBAY_ONLINE_URL names {what} of it. "
            "Name any of its nodes as redis://host:port/0 or rediss://host:port/0"
        )
    return Cluster.at(url, client, **_options())


@contextmanager
def translated(client: redis.Redis, url: str = ONLINE_URL) -> Iterator[None]:
    """Within it, redis-py's errors become `StoreUnavailableError` or `StoreError`; `url` says where theirs is given."""
    try:
        yield
    except redis.AuthenticationError:
        raise StoreUnavailableError(
            f"Redis at {address(client)} refused the user and password of {url}. Check them."
        ) from None
    except redis.BusyLoadingError:
        raise loading(client) from None
    except ELSEWHERE as error:
        raise elsewhere(client, error) from None
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise unreachable(client, error, url) from None
    except redis.RedisError as error:
        if isinstance(error, UNWRITABLE) or is_unwritable(error):
            raise unwritable(client, error) from None
        raise refused(client, error) from None


def refused(client: redis.Redis, error: Exception) -> StoreError:
    """The one line about a command that a server cannot carry out."""
    hint = ""
    if str(error).startswith("WRONGTYPE"):
        hint = ". A key of Forebay's is taken by somebody else: `TYPE` finds it among those of the namespace; remove it"
    return StoreError(f"Redis at {address(client)} refused a command: {error}{hint}")


def loading(client: redis.Redis) -> StoreUnavailableError:
    """The one line about a server that reads its data back after a restart."""
    return StoreUnavailableError(f"Redis at {address(client)} is still loading its data. Try again in a moment.")


def elsewhere(client: redis.Redis, error: Exception) -> StoreUnavailableError:
    """The one line about a slot of a cluster that is being moved, or that no node serves."""
    where = f"The cluster of Redis at {address(client)} does not serve a slot at the moment"
    said = str(error).rstrip(".")
    if isinstance(error, AskError | TryAgainError) or said.startswith(MOVING):
        return StoreMovingError(
            f"{where} ({said}): its keys are being moved, and are on two nodes. Try again when it has been moved; "
            "`CLUSTER NODES` shows which slots are."
        )
    return StoreUnavailableError(
        f"{where} ({said}): a node is gone, or the slot has just been moved. Try again in a moment; "
        "`CLUSTER INFO` says how the cluster is."
    )


def is_unwritable(error: Exception) -> bool:
    """Whether an error says, by itself or as the reason of another one, that the server takes no writes."""
    said = str(error)
    for before in QUOTING:
        said = said.rpartition(before)[2]
    return said.startswith(UNWRITABLE_CODES)


def unwritable(client: redis.Redis, error: Exception) -> StoreUnavailableError:
    """The one line about a server that answers reads, and takes no writes until somebody has seen to it."""
    return StoreUnavailableError(
        f"Redis at {address(client)} takes no writes at the moment ({str(error).rstrip('.')}). Make room on its disk "
        "or in its memory, or see to its replication; `INFO persistence`, `INFO memory` and `INFO replication` tell."
    )


def unreachable(client: redis.Redis, error: Exception, url: str = ONLINE_URL) -> StoreUnavailableError:
    """The one line about a server that doesn't answer."""
    reason = str(error).rstrip(".") or type(error).__name__
    return StoreUnavailableError(
        f"Redis at {address(client)} cannot be reached ({reason}). Check that it runs and that {url} is right."
    )


def address(client: redis.Redis) -> str:
    """Where a client's server is, without user and password."""
    known = client.connection_pool.connection_kwargs
    return str(known["path"]) if "path" in known else f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"


def shown(url: str) -> str:
    """An online URL for people to read: without user, password and options.

    >>> shown("rediss://ann:secret@host:6380/2?password=secret")
    'rediss://host:6380/2'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def _options(reply_timeout_s: float | None = None) -> dict[str, Any]:
    """What every connection has. RESP2: what the bulk paths parse themselves has no push messages in it."""
    waits_s = REPLY_TIMEOUT_S if reply_timeout_s is None else reply_timeout_s
    return {"protocol": 2, "socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": waits_s}


def _client(url: str, retry: Retry | None = None, reply_timeout_s: float | None = None) -> redis.Redis:
    retry = retry or Retry(NoBackoff(), RECONNECTS)
    try:
        client = redis.Redis.from_url(url, retry=retry, **_options(reply_timeout_s))
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # not connected yet: this is what refuses an unknown option
    except (TypeError, ValueError):  # their messages may quote a part of the password
        raise ConfigError(
            "FOREBAY_ONLINE_URL cannot be read as a URL; expected redis://user:password@host:6379/0 with a number as "
            "port, options that redis-py knows, and '/', '@', ':', '#' and '?' of a password percent-encoded"
        ) from None
    return client
