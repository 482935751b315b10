"""The online store, Redis: written by the stream's lanes and by publications, read in one round trip.

One noun per file; names and bytes are in docs/formats.md. It knows nothing of the offline store.
"""
