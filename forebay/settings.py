"""What a deployment is told by its environment: where its stores are and which definitions it runs.

Read once, checked when read, then passed along; nothing else reads `FOREBAY_*`. A bad value is a `ConfigError` that
names the variable and never repeats a URL, because a URL may hold a password. Settings of Kafka's client and of its
schema registry pass through by their own names: `FOREBAY_KAFKA_SASL_PASSWORD` is `sasl.password`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forebay.errors import ConfigError

EMBEDDED = "embedded"
KAFKA, REGISTRY = "FOREBAY_KAFKA_", "FOREBAY_SCHEMA_REGISTRY_"
PUBLISH_RATE = 100_000
"""Values that a publication writes in a second: a server that does nothing else applies two to five times as many."""
PUBLISH_RATE_MIN = 100
"""Fewer, and a large value could take longer than a publisher may be silent."""
ONLINE_SCHEMES = ("redis", "rediss", "unix")
_NAMESPACE = re.compile(r"[a-z0-9_-]{1,64}")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Settings:
    """Where a deployment is: `Settings.from_env()` in programs, plain values in tests.

    `home` is an absolute folder; `online_url` is `embedded` or a `redis://`, `rediss://` or `unix://` URL;
    `offline_url` is a folder or `s3://bucket/prefix`; `definitions` is a module; `namespace` begins every online key;
    `publish_rate` bounds the values that one publication writes in a second, 0 is no bound; `threads` is how many work
    on a training set at a time, by default as many as there are processors for this process;
    `kafka` and `registry` are settings of those clients and may hold secrets: never shown. Raises `ConfigError`.
    """

    home: Path
    online_url: str = field(repr=False)  # may hold a password
    offline_url: str
    definitions: str = "feature_defs"
    namespace: str = "forebay"
    publish_rate: int = PUBLISH_RATE
    threads: int = field(default_factory=lambda: processors())
    kafka: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    registry: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_online_url(self.online_url)
        _check_offline_url(self.offline_url)
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(
                f"FOREBAY_NAMESPACE is {self.namespace!r}; expected 1 to 64 of a-z, 0-9, '_' and '-', such as 'forebay'"
            )
        if not _MODULE.fullmatch(self.definitions):
            raise ConfigError(
                f"FOREBAY_DEFINITIONS is {self.definitions!r}; expected an importable module such as 'feature_defs'"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings of an environment; an empty variable counts as unset."""
        home = Path(environ.get("FOREBAY_HOME") or "./.forebay").expanduser().absolute()
        return cls(
            home=home,
            online_url=environ.get("FOREBAY_ONLINE_URL") or EMBEDDED,
            offline_url=environ.get("FOREBAY_OFFLINE_URL") or str(home / "offline"),
            definitions=environ.get("FOREBAY_DEFINITIONS") or "feature_defs",
            namespace=environ.get("FOREBAY_NAMESPACE") or "forebay",
            publish_rate=_publish_rate(environ),
            threads=_threads(environ),
            kafka=_passed_on(environ, KAFKA),
            registry=_passed_on(environ, REGISTRY),
        )


def _passed_on(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The settings that a client calls by its own names: `SASL_PASSWORD` behind the prefix is `sasl.password`."""
    return {
        name.removeprefix(prefix).lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(prefix) and value
    }


def _publish_rate(environ: Mapping[str, str]) -> int:
    text = environ.get("FOREBAY_PUBLISH_RATE") or str(PUBLISH_RATE)
    if not re.fullmatch(r"[0-9]{1,9}", text) or 0 < int(text) < PUBLISH_RATE_MIN:
        raise ConfigError(
            f"FOREBAY_PUBLISH_RATE is {text[:16]!r}; expected a whole number from {PUBLISH_RATE_MIN} on, such as "
            f"{PUBLISH_RATE}, or 0 for no bound"
        )
    return int(text)


def processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(environ: Mapping[str, str]) -> int:
    text = environ.get("FOREBAY_THREADS") or str(processors())
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
        raise ConfigError(
            f"FOREBAY_THREADS is {text[:16]!r}; expected a whole number from 1 to 999, such as 4; without it, as many "
            "threads as there are processors work on a training set"
        )
    return int(text)


def check_online_url(url: str) -> None:
    """Raise `ConfigError` unless `url` says where a Redis is."""
    scheme = url.partition("://")[0]
    if url != EMBEDDED and (scheme not in ONLINE_SCHEMES or scheme == url):
        raise ConfigError(
            f"FOREBAY_ONLINE_URL begins with {scheme[:16]!r}; "
            "expected 'embedded', redis://host:6379/0, rediss://… or unix:///path"
        )


def _check_offline_url(url: str) -> None:
    scheme, found, rest = url.partition("://")
    if found and (scheme != "s3" or not rest.strip("/")):
        raise ConfigError(
            f"FOREBAY_OFFLINE_URL begins with {scheme[:16] + '://'!r}; "
            "expected a folder such as ./offline or s3://bucket/prefix"
        )
