"""The stream: events from a source's log into the online store and the offline store, each counted once.

Lives here: what runs a flow (readers of logs, the wiring for Bytewax, sinks, the background writer). What an event, a
tile or a store is lives in `forebay`; Bytewax is named in `flow.py`, `sources.py`, `lane_sink.py` and
`archive_sink.py` only.

Invariant: the stores know how far each partition of a source has been applied, atomically with the data
(docs/stream.md), so a flow that is killed anywhere loses nothing and counts nothing twice.
"""
