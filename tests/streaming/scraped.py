"""What Prometheus is told: the samples of a page, and of a process."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Every sample by its name and the values of its labels."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    names = [sample.name.removeprefix("forebay_stream_") for sample in found]
    labels = [[value for _, value in sorted(sample.labels.items())] for sample in found]
    return {(name, *of): sample.value for name, of, sample in zip(names, labels, found, strict=True)}


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return samples(answer.read().decode())
