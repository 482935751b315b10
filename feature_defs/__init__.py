"""The declarations: entities, sources, views, services. This is the folder to edit; `forebay plan` shows changes.

Every definition reachable from this module is deployed: import new files here.
"""

from __future__ import annotations

from feature_defs import batch, delays, entities, services, sources

__all__ = ["batch", "delays", "entities", "services", "sources"]
