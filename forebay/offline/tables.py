"""The offline store: which Delta tables there are, by what they hold.

    events/<source>       archive(source)       streamed/<view>@<v>    streamed(view)
    tiles/<view>@<v>      tiles(view)           dead_letters           dead_letters()
    features/<view>@<v>   rows(view)            repairs                repairs()
    superseded/<view>@<v> rows(view)            history/<view>@<v>     history(view)
    newest/<view>@<v>     newest(view)          revived                revived()

Loaded only by those who use it: deltalake and Arrow's readers take a second to import.
"""

from __future__ import annotations

from collections.abc import Mapping

from forebay.language.limits import Limit
from forebay.language.source import EventSource
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.offline.archive import Archive
from forebay.offline.dead_letters import DeadLetters
from forebay.offline.history_table import HistoryTable
from forebay.offline.location import Location, check_reachable
from forebay.offline.newest_table import NewestTable
from forebay.offline.publications import Publications
from forebay.offline.repairs import Repairs
from forebay.offline.revived import Revived
from forebay.offline.rows_table import RowsTable
from forebay.offline.tiles_table import StreamedTable, TilesTable
from forebay.settings import Settings, processors


class OfflineStore:
    """The tables under `FOREBAY_OFFLINE_URL`. Opens nothing until a table is used.

    A table object follows its table: keep it for many calls. Storage that does not answer is a `StoreUnavailableError`,
    a store of another namespace a `ConfigError`.
    """

    def __init__(self, settings: Settings | str) -> None:
        if isinstance(settings, str):
            self.location, self.threads = Location.of(settings), processors()
        else:
            self.threads = settings.threads
            self.location = Location.of(settings.offline_url, namespace=settings.namespace)

    def archive(self, source: EventSource, limits: Mapping[str, Limit] | None = None) -> Archive:
        """The events of a source. `limits` (`Definitions.limits`) bounds the columns of files that are loaded."""
        return Archive(self.location, source, limits)

    def tiles(self, view: WindowedView) -> TilesTable:
        """The batch tiles of a view."""
        return TilesTable(self.location, view)

    def streamed(self, view: WindowedView) -> StreamedTable:
        """The tiles of a view as the stream wrote them."""
        return StreamedTable(self.location, view)

    def rows(self, view: BatchView) -> RowsTable:
        """The rows of a batch view."""
        return RowsTable(self.location, view)

    def newest(self, view: BatchView) -> NewestTable:
        """The newest row of every entity of a batch view, as of one of its versions."""
        return NewestTable(self.location, view)

    def publications(self, view: AnyView) -> Publications:
        """Which publication of a view was the last."""
        return Publications(self.rows(view).table if isinstance(view, BatchView) else self.tiles(view).table)

    def history(self, view: AnyView) -> HistoryTable:
        """The finished values of a view."""
        return HistoryTable(self.location, view)

    def dead_letters(self) -> DeadLetters:
        """The events that were refused."""
        return DeadLetters(self.location)

    def revived(self) -> Revived:
        """Dead letters that became events."""
        return Revived(self.location)

    def repairs(self) -> Repairs:
        """The dates that must be folded again."""
        return Repairs(self.location)

    def check(self) -> None:
        """Raise `StoreUnavailableError` unless the storage can be written and read."""
        check_reachable(self.location)
