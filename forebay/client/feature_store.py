"""`FeatureStore`: the door to features, online and historical.

May live here: connecting, and handing each call to the module that does it. Invariants: nothing is connected before
it is needed; the heavy half (Delta, DuckDB, pandas) is loaded only by the calls that read history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from forebay.calls.asked import Asked, Features
from forebay.client.clock import Clock, is_known
from forebay.client.deployed import Deployed, Found
from forebay.instants import instant_us
from forebay.language.definitions import Definitions
from forebay.language.types import AnyType
from forebay.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from forebay.calls.request import Request
    from forebay.calls.responses import FeatureHistory, OnlineResponse, TrainingSet
    from forebay.client.comparison import Comparison
    from forebay.history.bucketed import Written

Instant = datetime | str | int
"""An aware datetime, ISO 8601 text with an offset, or UTC microseconds."""


class FeatureStore:
    """The features of a deployment: online values, training sets, history. Get one by `FeatureStore.connect()`.

    All methods are keyword-only after their first argument, take and give aware instants, and raise `ForebayError`s:
    `UnknownNameError` for a name that is not deployed, `RequestError` for a request that cannot be answered as asked,
    `StoreUnavailableError` where a store cannot be reached. A store may be used from several threads.
    """

    def __init__(self, settings: Settings, definitions: Definitions | str | None = None) -> None:
        self._deployed = Deployed(settings, definitions)

    @classmethod
    def connect(
        cls,
        online_url: str | None = None,
        *,
        offline_url: str | None = None,
        namespace: str | None = None,
        definitions: Definitions | str | None = None,
    ) -> FeatureStore:
        """The store that the arguments name, each by default as the environment says (`FOREBAY_ONLINE_URL`, …).

        Definitions are those that `forebay apply` deployed; where nothing is deployed, those of the module
        `FOREBAY_DEFINITIONS`. `definitions` (a module's name, or `Definitions`) takes their place.
        """
        here = Settings.from_env()
        settings = replace(
            here,
            online_url=online_url or here.online_url,
            offline_url=offline_url or here.offline_url,
            namespace=namespace or here.namespace,
        )
        return cls(settings, definitions)

    @property
    def definitions(self) -> Definitions:
        """The definitions that requests are resolved against."""
        return self._deployed.definitions

    def find(self, question: Callable[[Definitions], Found]) -> Found:
        """What `question` finds in the definitions; where a name is not in them, those deployed are read again first.

        At most once a second, so that a running server answers for what `forebay apply` has just deployed. Raises
        `UnknownNameError` where the name is not deployed either.
        """
        return self._deployed.find(question)

    def keys_of(self, features: Features) -> dict[str, AnyType]:
        """The key columns that a row must bring along for these features, with their types."""
        return self._ask(features, False).keys

    def request_of(self, features: Features) -> dict[str, AnyType]:
        """The columns that a row must bring along for the on-demand features among these, with their types."""
        return dict(self._ask(features, False).request)

    def get_online_features(
        self,
        features: Features,
        *,
        entity_rows: Any,
        request: Request | None = None,
        at: Instant | None = None,
        full_feature_names: bool = False,
    ) -> OnlineResponse:
        """The values that a model gets now, in one round trip to the online store.

        `features` is a service (`"fraud@1"`, or `"fraud"` for the version that is active: a flip counts within a
        second) or a list of `"view@version:feature"`. `entity_rows` is a list of dicts, a dict of lists, a DataFrame or
        an Arrow table with the key columns of all entities asked for (others are ignored), at most `ENTITY_ROWS_MAX`
        rows. An unknown entity, and a null key, get the features' defaults. What on-demand features need of the request
        (`request_of`) are columns of `entity_rows`, or of `request`: `{"amount": 12.5}` for all rows, or a list for
        each. Raises `DefinitionError` where the function of an on-demand feature breaks its rules (`on_demand`).
        With `at`, the instant in place of now; `InstantTooEarlyError` where an event at or after it has been
        applied.
        """
        from forebay.client.online import read_online

        asked = self._ask(features, full_feature_names)
        return read_online(self._deployed.reader, asked, entity_rows, request, at=at, now_us=_now_us())

    def get_historical_features(
        self,
        entity_df: Any,
        *,
        features: Features,
        clock: Clock = "as_of",
        with_statuses: bool = False,
        full_feature_names: bool = False,
    ) -> TrainingSet:
        """The features of each row of `entity_df` as they were at its `event_timestamp`: a training set.

        `entity_df` is a pandas DataFrame, an Arrow table, or the path of a Parquet, CSV or NDJSON file with the key
        columns, an `event_timestamp` with a time zone, and the columns that on-demand features need of the request;
        these and other columns are kept. The result has one row per row,
        in the same order. A row sees only what lies before its instant. A null key gives the defaults of that
        entity's features. `with_statuses` adds a column `<feature>__status` beside each feature.

        With `clock="as_of"` a row gets the law over all events and rows that there are now, also those that came later
        than they are dated; with `clock="as_known"` only what had arrived (events) or been computed (batch rows) by its
        instant.
        """
        offline, asked = self._deployed.history, self._ask(features, full_feature_names)
        from forebay.history.historical import training_set
        from forebay.history.spine import Spine

        known, spine = is_known(clock), Spine.of(entity_df, asked, with_statuses=with_statuses)
        return training_set(offline, asked, spine, with_statuses=with_statuses, known=known)

    def write_historical_features(
        self,
        entity_df: Any,
        *,
        features: Features,
        out: str | Path,
        memory: str = "2GB",
        clock: Clock = "as_of",
        with_statuses: bool = False,
        full_feature_names: bool = False,
        spark: str | None = None,
        scratch: str | Path | None = None,
    ) -> Written:
        """The training set of `get_historical_features`, written to `out` without ever being in memory as a whole.

        `out` is a .parquet, .csv or .ndjson file, or a folder (also `s3://…`) for a Delta table, which is replaced. The
        process stays within `memory`, however large the archive and, in a Parquet file, the spine are: entities are
        answered bucket by bucket (all events of one entity must fit). What is read is spilled once to a temporary
        folder (TMPDIR, or in `scratch`). Raises `RequestError` where `memory` is less than this process holds already.

        With `spark`, a master such as `"local[2]"`, buckets are answered by Spark's tasks, and `memory` is what this
        process and each task may hold. Workers need Forebay, the store and `scratch`, a folder that all of them share.
        """
        offline, asked, known = self._deployed.history, self._ask(features, full_feature_names), is_known(clock)
        from forebay.client.memory import left_of
        from forebay.history.bucketed import write_training_set
        from forebay.history.outputs import check_out
        from forebay.history.spine_rows import SpineRows

        check_out(out)
        spine, left = SpineRows(entity_df, asked, with_statuses=with_statuses), left_of(memory)
        how: dict[str, Any] = {"with_statuses": with_statuses, "known": known, "spark": spark, "scratch": scratch}
        return write_training_set(offline, asked, spine, out, left=left, **how)

    def feature_history(
        self,
        view: str,
        entity: Mapping[str, Any],
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        every: str | None = None,
        clock: Clock = "as_of",
        with_statuses: bool = False,
    ) -> FeatureHistory:
        """What a view's features were for one entity, in `[start, end)`: at `start` and from each event (or row) on.

        With `every="1h"` it is asked on that grid instead. `start` is by default where the view's history starts,
        `end` now. `clock` is as for training sets. Columns: the entity's keys, `instant`, the features.
        """
        offline, declared = self._deployed.history, self.find(lambda known: known.view(view))
        from forebay.history.timeline import feature_history
        from forebay.language.learned import statistics_of

        if statistics_of(declared) and self._deployed.follow():
            declared = self.find(lambda known: known.view(view))

        return feature_history(
            offline,
            declared,
            entity,
            start_us=None if start is None else instant_us(start),
            end_us=_now_us() if end is None else instant_us(end),
            every=every,
            with_statuses=with_statuses,
            known=is_known(clock),
        )

    def compare(self, before: str, after: str, *, sample: int = 1_000) -> Comparison:
        """What two views (`"name@version"`) of one entity say of the same live entities, read at one instant.

        `sample` entities at most, some of either view as the online store happens to have them: the shadow run of a new
        version beside the one that serves.
        """
        from forebay.client.comparison import compare_views

        first, second = self.find(lambda known: (known.view(before), known.view(after)))
        online, namespace = self._deployed.redis, self._deployed.settings.namespace
        return compare_views(online, namespace, first, second, sample=sample, now_us=_now_us())

    def close(self) -> None:
        """Give the connections back."""
        self._deployed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, features: Features, full_feature_names: bool) -> Asked:
        return self._deployed.ask(features, full_feature_names)


def _now_us() -> int:
    return time.time_ns() // 1_000
