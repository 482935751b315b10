"""Benchmarks: each measures Forebay beside a named limit, in the same run. `python -m benchmarks` runs them all.

May live here: what is measured and how it is said. Nothing of Forebay imports it, and it is in no wheel. Invariants: a
figure is a ratio of two contenders that took turns on one machine; both are given the same data, and where they compute
the same, their values are compared.
"""
