"""Dagster: views as assets. Factories turn definitions into assets, `assets.definitions` merges them.

The work itself is forebay's: an asset reads, calls and reports.
"""
