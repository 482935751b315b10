"""Views: named, versioned groups of features of one entity. There are two kinds, and nothing else is one."""

from forebay.language.batch_view import BatchView
from forebay.language.windowed_view import WindowedView

__all__ = ["AnyView", "BatchView", "WindowedView"]

AnyView = WindowedView | BatchView
