"""Where the history of a source begins may change, unless archived events would be cut off from online values."""

from __future__ import annotations

import pytest

from forebay.deploy.footprint import ArchiveSize
from forebay.errors import PlanRefusedError
from tests.deploy.test_plan import SHOP, SPEND, but, keys, plan_of


@pytest.mark.parametrize("start", ["2024-01-02", "2025-01-01"])
def test_history_does_not_begin_after_archived_events(start: str) -> None:
    """No day before it would be folded, so the next publication would take their events out of online values."""
    later, archives = but(SHOP, history_start=start), lambda _: ArchiveSize(3, 100, "2024-01-01")
    sentence = (
        "source shop: its archive holds events from 2024-01-01 on, before history_start, and online values would lose "
        f"them\n    history_start: '2024-01-01' → '{start}'\n    declare history_start='2024-01-01'; for history that "
        "begins later, declare a source under another name"
    )
    after = [but(SPEND, source=later), later]
    with pytest.raises(PlanRefusedError) as caught:
        plan_of([SPEND, SHOP], after, archives=archives).check()
    assert sentence in str(caught.value)
    assert keys(plan_of([], after, archives=archives).refused) == ["source shop"], "its archive outlives its removal"
    assert not plan_of(after, after, archives=archives).refused, "what is deployed does not stop other changes"


@pytest.mark.parametrize(
    ("start", "first"),
    [("2024-01-02", "2024-01-02"), ("2024-01-02", None), ("2023-12-31", "2024-01-01"), ("2024-01-01", "2023-12-31")],
)
def test_history_begins_elsewhere_where_nothing_archived_is_before(start: str, first: str | None) -> None:
    after = but(SHOP, history_start=start)
    plan = plan_of([SHOP], [after], archives=lambda _: ArchiveSize(3, 100, first))
    assert (keys(plan.changed), plan.refused) == ([] if start == "2024-01-01" else ["source shop"], ())
    assert not plan_of([SHOP], [after], archives=lambda _: None).refused
