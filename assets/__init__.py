"""Dagster: views as assets. Factories turn definitions into assets, `assets.definitions` merges them; the work is forebay's."""
