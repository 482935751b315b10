"""The HTTP application: two routes, and one place where errors become JSON.

    GET /features/{entity}/{id}?names=a,b[&at=2013-12-15T00:00:00Z][&<request column>=<value>…]
        {"entity": {…}, "features": {name: {"value": …, "status": …, "event_timestamp": …}}, "instant": …}
    GET /health
        200 when the online store answers and a manifest is deployed, else 503

An error is `{"error": …, "hint": …}` with the status of its kind. The store is synchronous and runs in a pool of
threads.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from forebay import FeatureStore
from forebay.errors import (
    ConfigError,
    DefinitionError,
    ForebayError,
    NotDeployedError,
    RequestError,
    StoreUnavailableError,
    UnknownNameError,
)
from forebay.instants import instant_text, instant_us
from forebay.online.connection import connect_online, translated
from forebay.online.keys import Keys
from forebay.settings import Settings
from serving.asking import entity_row, feature_names, request_values

QUERY_BYTES_MAX = 32 * 1024
"""A query of all features of a wide entity fits; what is longer is refused unread."""
STATUSES: tuple[tuple[type[ForebayError], int], ...] = (
    (UnknownNameError, 404),
    (RequestError, 400),
    (StoreUnavailableError, 503),
    (NotDeployedError, 503),
    (ConfigError, 500),
    (DefinitionError, 500),
    (ForebayError, 500),
)

_SENTENCE_END = re.compile(r"\. (?=[A-Z])(?![^()]*\))|; ")
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def make_app(settings: Settings) -> Starlette:
    """The application over the stores of some settings; nothing is connected before the first request."""
    store = FeatureStore(settings)

    async def features(request: Request) -> Response:
        return _json(200, await run_in_threadpool(_read, store, request))

    async def health(request: Request) -> Response:
        return _json(200, await run_in_threadpool(_check, settings))

    return Starlette(
        routes=[Route("/features/{entity}/{id:path}", features), Route("/health", health)],
        exception_handlers={ForebayError: _refused, HTTPException: _not_served, Exception: _failed},
    )


def _read(store: FeatureStore, request: Request) -> dict[str, Any]:
    if len(request.url.query) > QUERY_BYTES_MAX:
        raise RequestError(f"The query has {len(request.url.query)} bytes. At most {QUERY_BYTES_MAX} are read")
    at = request.query_params.get("at")
    entity = store.find(lambda known: known.entity(request.path_params["entity"]))
    row = entity_row(entity, request.path_params["id"])
    names = store.find(lambda known: feature_names(known, entity, request.query_params.get("names")))
    features = list(dict.fromkeys(names.values()))
    brought = request_values(request.query_params, store.request_of(features))
    response = store.get_online_features(
        features, entity_rows=[row], request=brought, at=None if at is None else instant_us(at)
    )
    values, statuses, events = response.to_dict(), response.statuses, response.event_timestamps
    answers = {
        feature: {"value": values[feature][0], "status": statuses[feature][0], "event_timestamp": events[feature][0]}
        for feature in response.features
    }
    return {
        "entity": row,
        "features": {name: answers[reference.partition(":")[2]] for name, reference in names.items()},
        "instant": instant_text(response.instant_us),
    }


def _check(settings: Settings) -> dict[str, Any]:
    client = connect_online(settings)
    try:
        with translated(client):
            deployed = bool(client.exists(Keys(settings.namespace).manifest()))
    finally:
        client.close()
    if not deployed:
        raise StoreUnavailableError("No definitions are deployed. Run forebay apply")
    return {"status": "ok"}


async def _refused(request: Request, error: Exception) -> Response:
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    return _error(status, str(error))


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return _error(error.status_code, f"{what}. There are GET /features/{{entity}}/{{id}}?names=a,b and GET /health")


async def _failed(request: Request, error: Exception) -> Response:
    return _error(500, f"{type(error).__name__}. The server's log says where")


def _error(status: int, message: str) -> Response:
    """What was wrong, and what to do: Forebay's messages say both, in this order."""
    error, hint = [*_SENTENCE_END.split(message, maxsplit=1), ""][:2]
    return _json(status, {"error": error.rstrip("."), "hint": hint.rstrip(".")})


def _json(status: int, content: Any) -> Response:
    return Response(_ENCODER.encode(content), status, media_type="application/json")
