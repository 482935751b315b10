"""What holds on one server holds on a cluster: tests of the lane, of publications, of reads and of the seam between
batch and stream, which run here on three nodes.
"""

from __future__ import annotations

from tests.stores.test_online_lane import (  # noqa: F401  pytest finds them here
    test_a_lane_that_was_replaced_writes_nothing,
    test_a_piece_without_events_moves_the_views_it_names,
    test_a_server_that_lost_everything_stops_its_lanes,
    test_lanes_of_other_slots_do_not_meet,
    test_partitions_are_counted_apart,
    test_pending_is_rolled_up_when_it_is_long_and_others_wait_too_or_else_when_it_is_twice_as_long,
    test_progress_covers_every_slot_and_never_moves_back,
    test_rolling_up_drops_what_a_finished_publication_covers,
    test_what_is_committed_can_be_read,
)
from tests.stores.test_online_publish import (  # noqa: F401  pytest finds them here
    test_a_cut_never_goes_back,
    test_many_entities_go_in_many_transactions,
    test_rows_that_are_gone_are_deleted_and_the_others_expire,
    test_streaming_and_publishing_do_not_fence_each_other,
    test_what_a_re_run_has_emptied_is_deleted,
)
from tests.stores.test_online_read import (  # noqa: F401  pytest finds them here
    test_a_ttl_expires_values_and_an_empty_window_is_missing,
    test_an_instant_before_the_cut_is_historys,
    test_rows_are_those_of_the_keys_in_their_order,
    test_what_is_behind_each_row_is_told,
)
from tests.stores.test_online_seam import (  # noqa: F401  pytest finds them here
    test_a_re_run_at_the_same_cut_replaces_what_was_there,
    test_a_re_run_without_an_entity_takes_it_away_once_and_for_all,
    test_the_blob_of_an_emptied_entity_counts_no_more_once_the_cut_has_moved,
)
from tests.stores.test_publish_rate import (  # noqa: F401  pytest finds them here
    test_tiles_are_published_no_faster_than_was_asked_for,
)
