"""The registry: where the deployed definitions live.

    offline   registry/manifest-000007.json   every deployment, numbered; the next number can be taken once
    online    <ns>:manifest                   the newest, for clients that know Redis alone
    online    <ns>:active                     which version of each service is active, of the same number

To apply, and to flip a service to another version, is to take the next number: of two at the same time one takes it,
the other is told to look again. The copy in Redis never goes back to a smaller number. The deployed definitions are the
newest of both stores, and an apply writes them to the one that lacks them, so that an apply that was cut short is
finished by running it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import redis

from forebay.deploy.footprint import Archives, Reusable
from forebay.deploy.plan import Check, Plan, active_after, make_plan, retired_after
from forebay.errors import FencedError
from forebay.language.definitions import Definitions
from forebay.language.learned import carried, with_learned
from forebay.language.manifest import from_manifest, to_manifest
from forebay.language.view import AnyView
from forebay.offline.documents import Documents, open_documents
from forebay.offline.ownership import Owner
from forebay.online.active import Active
from forebay.online.cluster import Cluster
from forebay.online.connection import translated
from forebay.online.keys import Keys

if TYPE_CHECKING:
    from forebay.settings import Settings

FOLDER = "registry"
PUT_ATTEMPTS_MAX = 10
"""Other applies that may come between, each with a greater number: then theirs stands."""


@dataclass(frozen=True)
class Applied:
    """What an apply did: the number of what is deployed now, and the plan that led to it (empty: nothing to do)."""

    number: int
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"number": self.number, "applied": not self.plan.empty, **self.plan.to_dict()}


@dataclass(frozen=True)
class Flipped:
    """A service, the version that was active before and the one that is now, and the number of the manifest."""

    service: str
    before: int
    after: int
    number: int


class Registry:
    """The deployed definitions of one namespace."""

    def __init__(self, documents: Documents, online: redis.Redis, namespace: str, owner: Owner | None = None) -> None:
        self._documents = documents
        self._online = online
        self._owner = owner or Owner()
        self._key, self._active = Keys(namespace).manifest(), Keys(namespace).active()

    @classmethod
    def open(cls, settings: Settings, online: redis.Redis) -> Registry:
        """The registry of a deployment; `online` is a connection of its."""
        owner = Owner(settings.offline_url, settings.namespace)
        return cls(open_documents(settings.offline_url), online, settings.namespace, owner)

    def current(self) -> Definitions | None:
        """The deployed definitions, `None` before the first apply."""
        self._owner.check()
        offline, online = self._offline(), self._read_online()
        return online if offline is None or (online is not None and online.number > offline.number) else offline

    def restore(self) -> Definitions | None:
        """The deployed definitions; a Redis that lost its copy gets it back."""
        deployed = self.current()
        if deployed is not None:
            self._write_online(deployed)
        return deployed

    def last_seen(self, view: str) -> AnyView | None:
        """A view as it was last deployed, in whichever manifest that was; `None` where it never was."""
        for name in reversed(self._documents.names(FOLDER)):
            data = self._documents.read(name) if _number(name) else None
            found = None if data is None else from_manifest(data).views.get(view)
            if found is not None:
                return found
        return None

    def plan(
        self,
        code: Definitions,
        *,
        now_us: int | None = None,
        archives: Archives | None = None,
        reusable: Reusable | None = None,
    ) -> Plan:
        """What applying the code would change; expressions are checked where DuckDB is installed."""
        deployed, check = self.current(), expression_check()
        return make_plan(code, deployed, now_us=now_us, archives=archives, reusable=reusable, check=check)

    def apply(
        self,
        code: Definitions,
        *,
        now_us: int | None = None,
        archives: Archives | None = None,
        prepare: Callable[[Plan], None] = lambda plan: None,
    ) -> Applied:
        """Deploy the code. Does nothing but mend where it is deployed already.

        `prepare` gets the plan just before it is deployed: what must be true of new views from their first instant on.
        One that is cut short runs again with the next apply, as nothing is deployed then.
        Raises `PlanRefusedError` with every refusal, and `FencedError` where another apply came between.
        """
        deployed = self.current()
        plan = make_plan(code, deployed, now_us=now_us, archives=archives, check=expression_check())
        plan.check()
        if deployed is None or not plan.empty:
            number = deployed.number + 1 if deployed else 1
            active, retired = active_after(code, deployed), retired_after(code, deployed)
            views = carried(code, deployed)
            deployed = replace(code, number=number, views=views, retired=retired, active=active)
            prepare(plan)
            self._take(deployed)
        elif self._offline() is None or self._newest() < deployed.number:
            self._take(deployed)
        self._write_online(deployed)
        return Applied(deployed.number, plan)

    def flip(self, name: str, version: int) -> Flipped:
        """Make a version the active one of a service: what its bare name means from now on, for every client.

        Does nothing but mend where it is active already. Raises `UnknownNameError` where it is not deployed, and
        `FencedError` where an apply or another flip came between.
        """
        deployed = self.current() or Definitions()
        service = deployed.service(f"{name}@{version}")
        before = int(deployed.active_service(name).partition("@")[2])
        if deployed.active.get(name) != version:
            active = {**deployed.active, service.name: version}
            deployed = replace(deployed, number=deployed.number + 1, active=active)
            self._take(deployed)
        self._write_online(deployed)
        return Flipped(name, before, version, deployed.number)

    def learn(self, view: str, values: Mapping[str, Any]) -> int:
        """Make values the defaults of a view's features that are statistics; the number of the manifest that says so.

        Does nothing but mend where they are so already. Raises `UnknownNameError` where the view is not deployed,
        `DefinitionError` for a feature without a statistic, `FencedError` where an apply or a flip came between.
        """
        deployed = self.current() or Definitions()
        was = deployed.view(view)
        taught = with_learned(was, values)
        if taught != was:
            deployed = replace(deployed, number=deployed.number + 1, views={**deployed.views, view: taught})
            self._take(deployed)
        self._write_online(deployed)
        return deployed.number

    def _take(self, definitions: Definitions) -> None:
        self._owner.claim()
        if not self._documents.create(_name(definitions.number), to_manifest(definitions)):
            raise FencedError(
                f"Another apply has just deployed manifest {definitions.number}, and nothing of this one was written; "
                "look at `forebay plan` again and repeat it"
            )

    def _newest(self) -> int:
        return max((_number(name) for name in self._documents.names(FOLDER)), default=0)

    def _offline(self) -> Definitions | None:
        number = self._newest()
        data = self._documents.read(_name(number)) if number else None
        return None if data is None else from_manifest(data)

    def _read_online(self) -> Definitions | None:
        with translated(self._online):
            data = self._online.get(self._key)
        return from_manifest(data) if isinstance(data, bytes) else None

    def _write_online(self, definitions: Definitions) -> None:
        """Put a manifest where there is none or one with a smaller number, and what is active with it.

        On a cluster no transaction holds both. What is active comes last: it is what clients look at.
        """
        number, manifest = definitions.number, to_manifest(definitions)
        active = Active(number, definitions.active).encode()
        if isinstance(self._online, Cluster):
            self._put(self._key, lambda there: from_manifest(there).number, number, {self._key: manifest})
            self._put(self._active, lambda there: Active.decode(there).number, number, {self._active: active})
        else:
            both = {self._key: manifest, self._active: active}
            self._put(self._key, lambda there: from_manifest(there).number, number, both)

    def _put(self, key: str, number_of: Callable[[bytes], int], number: int, values: Mapping[str, bytes]) -> None:
        """Set values unless what is at `key` has a number that is as great."""
        with translated(self._online), self._online.pipeline(transaction=True) as transaction:
            for _ in range(PUT_ATTEMPTS_MAX):
                transaction.watch(key)  # type: ignore[no-untyped-call]  # redis-py has no types for it
                there = transaction.get(key)
                if isinstance(there, bytes) and number_of(there) >= number:
                    return
                transaction.multi()
                for name, value in values.items():
                    transaction.set(name, value)
                try:
                    transaction.execute()
                except redis.WatchError:
                    continue
                return


def expression_check() -> Check | None:
    """The check of SQL expressions, `None` where DuckDB is not installed."""
    try:
        from forebay.ingest.expressions import check_expressions
    except ImportError:
        return None
    return check_expressions


def _name(number: int) -> str:
    return f"{FOLDER}/manifest-{number:06d}.json"


def _number(name: str) -> int:
    text = name.removeprefix(f"{FOLDER}/manifest-").removesuffix(".json")
    return int(text) if text.isdigit() else 0
