"""How the columns of a request are named, where views have features of one name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from forebay.calls.asked import Asked
from forebay.errors import RequestError
from forebay.instants import moment
from forebay.language.definitions import Definitions
from tests.backfill.world import day, sale
from tests.client.two_versions import V1, V2, Shop

LARGE = msgspec.structs.replace(V2, name="large_sales", version=1)
FEATURES = ["user_sales@1:bought_24h", "large_sales@1:bought_24h"]
TITLES = ["user_sales__bought_24h", "large_sales__bought_24h"]


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str) -> Shop:
    made = Shop.at(home, online_url, namespace, str(home / "offline"))
    made.apply(V1, LARGE)
    made.stream([sale(0, day(0, 1), "u1", "10.00"), sale(1, day(0, 2), "u1", "-4.00")], V1, LARGE)
    return made


def test_features_of_one_name_are_told_apart_by_full_names(shop: Shop) -> None:
    at, row = moment(day(0, 3)), {"user_id": "u1"}
    online = shop.store.get_online_features(FEATURES, entity_rows=[row], at=at, full_feature_names=True)
    spine = {"user_id": ["u1"], "event_timestamp": [at]}
    training = shop.store.get_historical_features(spine, features=FEATURES, full_feature_names=True).to_arrow()
    assert online.to_dict() == {"user_id": ["u1"], TITLES[0]: [2], TITLES[1]: [1]}
    assert training.select(TITLES).to_pydict() == {TITLES[0]: [2], TITLES[1]: [1]}


@pytest.mark.parametrize(
    ("features", "full", "sentence"),
    [
        (FEATURES, False, "of 'user_sales@1' and 'large_sales@1'; columns need distinct names: pass full_feature"),
        ([FEATURES[0], "user_sales@2:bought_24h"], True, "'user_sales@2'; columns need distinct names: ask for them"),
        ([FEATURES[0], FEATURES[0]], True, "'user_sales@1'; columns need distinct names: ask for them apart"),
    ],
)
def test_columns_of_one_name_are_refused(features: list[str], full: bool, sentence: str) -> None:
    with pytest.raises(RequestError, match="bought_24h' is asked for twice") as caught:
        Asked.of(Definitions.of(V1, V2, LARGE), features, full_feature_names=full)
    assert sentence in str(caught.value)
