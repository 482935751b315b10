"""The names of assets: what others script against, so they never change within a version.

stream/<source>  →  events/<source>  →  tiles/<view>_v<n>     →  online/<view>_v<n>  →  service/<service>_v<n>
                    table/<source>   →  features/<view>_v<n>  →  online/<view>_v<n>
events/<source>  →  sessions/<name>  →  tiles/…, as far as a view is of sessions
                    events/…, features/…                      →  training/<service>_v<n>, history/<view>_v<n>
events/…, tiles/…, features/…, history/…                      →  maintained/<table>
"""

from __future__ import annotations

from dagster import AssetKey

from forebay.language.service import FeatureService
from forebay.language.sessions import Sessionize
from forebay.language.source import AnySource, EventSource
from forebay.language.view import AnyView, WindowedView


def stream_key(source: EventSource) -> AssetKey:
    """The stream that a source is read from."""
    return AssetKey(["stream", source.name])


def source_key(source: AnySource) -> AssetKey:
    """The archive of an event source, or a table."""
    return AssetKey(["events" if isinstance(source, EventSource) else "table", source.name])


def sessions_key(sessions: Sessionize) -> AssetKey:
    """The sessions in the events of a source."""
    return AssetKey(["sessions", sessions.name])


def events_key(view: WindowedView) -> AssetKey:
    """What a windowed view aggregates: the archive of its source, or sessions."""
    return source_key(view.source) if view.sessions is None else sessions_key(view.sessions)


def offline_key(view: AnyView) -> AssetKey:
    """What batch computes of a view: tiles, or rows of features."""
    return AssetKey(["tiles" if isinstance(view, WindowedView) else "features", view.asset_name])


def online_key(view: AnyView) -> AssetKey:
    """A view in the online store."""
    return AssetKey(["online", view.asset_name])


def history_key(view: AnyView) -> AssetKey:
    """The finished values of a view."""
    return AssetKey(["history", view.asset_name])


def learned_key(view: AnyView) -> AssetKey:
    """The statistical defaults of a view."""
    return AssetKey(["learned", view.asset_name])


def retired_key() -> AssetKey:
    """What removes views that are deployed no more."""
    return AssetKey(["retired"])


def maintained_key(table: str) -> AssetKey:
    """The maintenance of a table of the offline store, by its path with the asset's name of its view."""
    return AssetKey(["maintained", *table.split("/")])


def training_key(service: FeatureService) -> AssetKey:
    """The training set of a service."""
    return AssetKey(["training", service.asset_name])


def service_key(service: FeatureService) -> AssetKey:
    """A service as models read it online."""
    return AssetKey(["service", service.asset_name])
