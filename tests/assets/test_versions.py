"""What Dagster has of versions that stand side by side."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets.comparison import comparison_check, comparison_checks
from assets.definitions import make_definitions
from assets.deployment import with_deployed_defaults
from assets.retirement import retired_asset
from forebay import FeatureService, Median, Sum, WindowedView
from forebay.language.definitions import Definitions
from tests.backfill.shop import sales, user, user_spending
from tests.backfill.world import day, sale
from tests.client.test_versions import AT, NEW, OLD, USERS
from tests.client.two_versions import FIRST, SECOND, V1, V2, Shop, version


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, place: str) -> Shop:
    monkeypatch.setenv("FOREBAY_ONLINE_URL", online_url)
    monkeypatch.setenv("FOREBAY_NAMESPACE", namespace)
    return Shop.at(home, online_url, namespace, place)


def test_a_version_is_compared_with_the_one_before_it() -> None:
    names = [
        (key.asset_key.to_user_string(), key.name)
        for check in comparison_checks([version(4), V2, V1, user_spending])
        for key in check.check_keys
    ]
    assert names == [("online/user_sales_v4", "compared_with_v2"), ("online/user_sales_v2", "compared_with_v1")]


def test_the_check_warns_of_entities_that_the_new_version_lacks(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.stream([*OLD, *NEW], V1, V2)
    check = comparison_check(V1, V2)
    result = check()
    assert isinstance(result, dg.AssetCheckResult)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["lacking entities"].value == 1
    assert result.metadata["equal bought_lifetime"].value == 0.5
    shop.stream([OLD[0] | {"event_id": "x", "user_id": "u3"}], V1, V2)
    assert comparison_check(V1, V2)().passed


def test_a_retired_view_is_removed_by_an_asset(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.stream([*OLD, *NEW], V1, V2)
    shop.backfill(V1, 1)
    asset = retired_asset()

    def materialize(**config: object) -> dg.ExecuteInProcessResult:
        run_config = {"ops": {"retired": {"config": {"view": V1.key, **config}}}}
        return dg.materialize([asset], run_config=run_config, raise_on_error=False)

    failed = materialize()
    assert "it is deployed, and shop@1 pins it" in str(failed.get_step_failure_events()[0].event_specific_data)
    shop.registry.flip("shop", 2)
    shop.apply(SECOND, V1)
    shop.apply(SECOND)
    for config, files in (({"dry_run": True}, True), ({}, True), ({}, False)):
        result = materialize(**config)
        assert result.success
        found = result.asset_materializations_for_node("retired")[0].metadata
        assert (found["file_bytes"].value > 0) == files
    assert shop.online(SECOND.key, USERS, AT) == shop.training(SECOND.key, USERS, AT)


def test_defaults_are_learned_by_an_asset(shop: Shop) -> None:
    view = learned_version()
    shop.apply(FeatureService("learned", version=1, features=[view]))
    shop.stream([sale(0, day(0, 1), "u1", "10.00")], view)
    (asset,) = [asset for asset in make_definitions(Definitions.of(view)).assets or [] if "learned" in str(asset)]
    assert isinstance(asset, dg.AssetsDefinition)
    result = dg.materialize([asset])
    found = result.asset_materializations_for_node("learned__spent_v1")[0].metadata
    assert found["manifest"].value == 2
    assert shop.online("learned@1", ["nobody"], AT)["spent_lifetime"] == [10]
    assert with_deployed_defaults(view).outputs()["spent_lifetime"].default == 10
    assert with_deployed_defaults(V1) is V1


def learned_version() -> WindowedView:
    default = Median(over="3650d", otherwise=0)
    features = [Sum("spent", of="amount", windows=[None], default=default)]
    return WindowedView("spent", version=1, entity=user, source=sales, features=features)
