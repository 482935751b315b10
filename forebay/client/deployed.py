"""What is deployed: connections and definitions, opened when first needed and kept; functions come from the code.

The manifest is read once. A name that it does not hold makes it be read again, at most once a second, so that a running
service finds what `forebay apply` has just deployed. Calls that ask for a service by its bare name, or for a view with
statistical defaults, look at most once a second whether something newer is deployed: a flip, and what was learned,
reach every client within a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from forebay.calls.asked import Asked, Features, Function
from forebay.errors import ConfigError, DefinitionError, NotDeployedError, StoreUnavailableError, UnknownNameError
from forebay.language.definitions import Definitions
from forebay.language.on_demand import OnDemandView
from forebay.settings import Settings

if TYPE_CHECKING:
    import redis

    from forebay.offline.tables import OfflineStore
    from forebay.online.active import Active
    from forebay.online.read import OnlineReader

Found = TypeVar("Found")
REREAD_AFTER_S = 1.0
ASKED_KEPT = 256
"""Requests whose resolution is remembered."""


class Deployed:
    """The stores of some settings and the definitions deployed in them."""

    def __init__(self, settings: Settings, definitions: Definitions | str | None = None) -> None:
        self.settings = settings
        self._given = Definitions.load(definitions) if isinstance(definitions, str) else definitions
        self._definitions, self._code = self._given, self._given
        self._read_at = 0.0
        self._asked: dict[Any, Asked] = {}
        self._active: Active | None = None
        self._followed_at = -REREAD_AFTER_S

    @property
    def definitions(self) -> Definitions:
        """Those given, else those deployed. Raises `NotDeployedError`."""
        if self._definitions is None:
            self._definitions = self._read()
        return self._definitions

    @cached_property
    def redis(self) -> redis.Redis:
        """The online store. Raises `StoreUnavailableError`."""
        from forebay.online.connection import connect_online

        return connect_online(self.settings)

    @cached_property
    def reader(self) -> OnlineReader:
        """Reads of the online store."""
        from forebay.online.read import OnlineReader

        return OnlineReader(self.redis, self.settings.namespace)

    @cached_property
    def offline(self) -> OfflineStore:
        """The offline store. Raises `ConfigError` where its packages are not installed."""
        try:
            from forebay.offline.tables import OfflineStore
        except ImportError as error:
            raise ConfigError(
                f"History needs the offline store's packages, and {error.name!r} is not installed: "
                "pip install 'forebay[offline]'"
            ) from None
        return OfflineStore(self.settings)

    @cached_property
    def history(self) -> OfflineStore:
        """The offline store, for what is only right where the deployed definitions are: reads, and loads.

        Raises `ConfigError` where nothing was ever deployed in it: its URL is wrong, and all answers were defaults.
        """
        from forebay.offline.documents import open_documents

        offline, number, url = self.offline, self.definitions.number, self.settings.offline_url
        if self._given is None and number and not open_documents(url).names("registry"):
            raise ConfigError(
                f"Manifest {number} is deployed online, and nothing in the offline store {url!r}. Check "
                "FOREBAY_OFFLINE_URL, or begin a new store there with `forebay apply`"
            )
        return offline

    def ask(self, features: Features, full_feature_names: bool) -> Asked:
        """A request, resolved. Raises `UnknownNameError` and `RequestError`."""
        if isinstance(features, str) and "@" not in features and ":" not in features:
            features = self._active_service(features)
        asked = self._known(features, full_feature_names)
        if asked.learns and self.follow():
            asked = self._known(features, full_feature_names)
        return asked

    def follow(self) -> bool:
        """Look up, at most once a second, which services are active; whether newer definitions are deployed.

        These are read then. A store that does not answer leaves what is known.
        """
        if self._given is not None or time.monotonic() - self._followed_at < REREAD_AFTER_S:
            return False
        self._followed_at = time.monotonic()
        try:
            self._active = self._read_active()
            if self._active is None or self._active.number <= self.definitions.number:
                return False
            self._definitions = self._read()
        except StoreUnavailableError:
            if self._definitions is None:
                raise
            return False
        self._asked.clear()
        return True

    def _known(self, features: Features, full_feature_names: bool) -> Asked:
        names = (features,) if isinstance(features, str) else features
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return self._resolve(features, full_feature_names)
        question = (isinstance(features, str), full_feature_names, *names)
        asked = self._asked.get(question)
        if asked is None:
            asked = self._resolve(features, full_feature_names)
            if len(self._asked) >= ASKED_KEPT:
                self._asked.clear()
            self._asked[question] = asked
        return asked

    def close(self) -> None:
        """Give the connections back."""
        if "redis" in self.__dict__:
            self.redis.close()

    def find(self, question: Callable[[Definitions], Found]) -> Found:
        """What `question` finds in the definitions; they are read again for a name that they do not hold."""
        try:
            return question(self.definitions)
        except UnknownNameError:
            if self._given is not None or time.monotonic() - self._read_at < REREAD_AFTER_S:
                raise
            self._definitions = self._read()
            return question(self._definitions)

    def _resolve(self, features: Features, full_feature_names: bool) -> Asked:
        asked = self.find(lambda known: Asked.of(known, features, full_feature_names=full_feature_names))
        return asked.bound(self._function) if asked.on_demand else asked

    def _function(self, view: OnDemandView) -> Function:
        """The function of an on-demand view, which is in the code alone. Raises `ConfigError` where it is not there, or
        is not what is deployed.
        """
        module = self.settings.definitions
        what = f"The function of on-demand view {view.key!r} is needed, and"
        if self._code is None:
            try:
                self._code = Definitions.load(module)
            except DefinitionError as error:
                raise ConfigError(
                    f"{what} its code is not here: {error}. Install the definitions, or set FOREBAY_DEFINITIONS"
                ) from None
        here = self._code.on_demand.get(view.key)
        if here is None or here.compute is None:
            raise ConfigError(
                f"{what} module {module!r} does not hold it; set FOREBAY_DEFINITIONS to the one that was applied, and, "
                "if it was added while this process ran, start again"
            )
        if here.code != view.code:
            raise ConfigError(
                f"{what} module {module!r} holds another one than is deployed; install the definitions that were "
                "applied, and start again"
            )
        return here.compute

    def _active_service(self, name: str) -> str:
        """The key of the version that the bare name of a service means now."""
        self.follow()
        version = None if self._active is None else self._active.services.get(name)
        return f"{name}@{version}" if version else self.find(lambda known: known.active_service(name))

    def _read_active(self) -> Active | None:
        from forebay.online.active import Active
        from forebay.online.connection import translated
        from forebay.online.keys import Keys

        with translated(self.redis):
            found = self.redis.get(Keys(self.settings.namespace).active())
        return Active.decode(found) if isinstance(found, bytes) else None

    def _read(self) -> Definitions:
        from forebay.language.manifest import from_manifest
        from forebay.online.connection import shown, translated
        from forebay.online.keys import Keys

        self._read_at = time.monotonic()
        with translated(self.redis):
            manifest = self.redis.get(Keys(self.settings.namespace).manifest())
        if not isinstance(manifest, bytes):
            raise NotDeployedError(
                f"Nothing is deployed in namespace {self.settings.namespace!r} of the online store "
                f"{shown(self.settings.online_url)!r}. Deploy there with `forebay apply`; if you did, check "
                "FOREBAY_NAMESPACE and FOREBAY_ONLINE_URL"
            )
        return from_manifest(manifest)
