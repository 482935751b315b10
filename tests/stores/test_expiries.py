"""What a writer remembers of the expiry of its keys: bounded, and never believed of another key."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from forebay.instants import SECOND_US
from forebay.online import expiry
from forebay.online.expiry import RENEW_S, RENEW_S_MAX, Expiries, key_hashes

KEEP_S = np.array([100, 100, 100])
HASHES = key_hashes("v@1", pa.array(["ann", "bob", "eve"]))


def test_a_key_is_told_again_once_it_would_go_too_early() -> None:
    expiries = Expiries()
    rows, kept_s = expiries.due(HASHES, KEEP_S, 0)
    assert (rows.tolist(), kept_s.tolist()) == ([0, 1, 2], [100 + RENEW_S] * 3)
    assert not len(expiries.due(HASHES, KEEP_S, RENEW_S * SECOND_US)[0])
    assert expiries.due(HASHES, KEEP_S + np.array([0, 1, 0]), RENEW_S * SECOND_US)[0].tolist() == [1]
    assert expiries.due(HASHES, KEEP_S, (RENEW_S + 1) * SECOND_US)[0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("lifetime_s", "apart_s", "told"),
    [
        (3600, 600, 50),  # of an hour: kept 15 minutes longer, told with every second write
        (7 * 86_400, 3600, 10),  # of a week: 10.5 hours longer, told with every eleventh
        (365 * 86_400, 7200, 8),  # of a year: a day longer, with every thirteenth
    ],
)
def test_the_longer_a_key_is_kept_the_less_often_it_is_told(lifetime_s: int, apart_s: int, told: int) -> None:
    expiries, lifetimes = Expiries(), np.array([lifetime_s])
    writes = [len(expiries.due(HASHES[:1], lifetimes, n * apart_s * SECOND_US)[0]) for n in range(100)]
    assert sum(writes) == told


def test_what_was_deleted_is_told_again() -> None:
    expiries = Expiries()
    expiries.due(HASHES, KEEP_S, 0)
    expiries.forget(HASHES[1:2])
    assert expiries.due(HASHES, KEEP_S, 0)[0].tolist() == [1]
    expiries.forget()
    assert expiries.due(HASHES, KEEP_S, 0)[0].tolist() == [0, 1, 2]


def test_a_key_in_the_place_of_another_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "PLACES", 1)
    expiries = Expiries()
    for _ in range(2):
        assert expiries.due(HASHES[:1], KEEP_S[:1], 0)[0].tolist() == [0]
        assert expiries.due(HASHES[1:2], KEEP_S[:1], 0)[0].tolist() == [0]
    assert expiries.due(HASHES, KEEP_S, 0)[0].tolist() == [0, 2]  # bob had the place, until the last of them took it
    assert not len(expiries.due(HASHES[2:], KEEP_S[:1], 0)[0])


def test_memory_does_not_grow_with_keys() -> None:
    expiries = Expiries()
    for first in range(0, 3 * expiry.PLACES, expiry.PLACES):
        expiries.due(np.arange(first, first + expiry.PLACES, dtype=np.uint64), np.full(expiry.PLACES, 9), 0)
    assert sum(array.nbytes for array in vars(expiries).values()) == expiry.BYTES


def test_what_never_expires_is_not_told() -> None:
    assert not len(Expiries().due(HASHES, None, 0)[0])


def test_far_beyond_what_is_remembered_it_is_told_each_time() -> None:
    expiries, ages_s = Expiries(), KEEP_S + expiry.UNTIL_S_MAX
    for _ in range(2):
        rows, kept_s = expiries.due(HASHES, ages_s, 0)
        assert (rows.tolist(), kept_s.tolist()) == ([0, 1, 2], (ages_s + RENEW_S_MAX).tolist())


def test_hashes_tell_keys_apart_whatever_they_share_and_whoever_asks_with_them() -> None:
    texts = [
        f"{head}{n}{tail}" for n in range(3000) for head in ("", "u", "user_00000000") for tail in ("", "|1", "|2")
    ]
    texts += [letter * n for letter in "ab" for n in range(1, 513)]
    hashes = key_hashes("v@1", pa.array(texts))
    assert len(set(hashes.tolist())) == len(set(texts))
    assert [key_hashes("v@1", pa.array([text])).tolist() for text in texts[:50]] == [
        [one] for one in hashes[:50].tolist()
    ]
    assert key_hashes("v@2", pa.array(texts[:1])) != hashes[:1]
    assert key_hashes("v@1", pa.array(["v@2"])) != key_hashes("v@2", pa.array(["v@1"]))


def test_keys_take_few_of_each_others_places() -> None:
    hashes = key_hashes("v@1", pa.array([str(n) for n in range(100_000)]))
    expiries = Expiries()
    expiries.due(hashes, np.full(len(hashes), 60), 0)
    told_again = len(expiries.due(hashes, np.full(len(hashes), 60), 0)[0])
    assert told_again < 0.05 * len(hashes)  # 2.3 % are expected: of 100,000 in 2^21 places
