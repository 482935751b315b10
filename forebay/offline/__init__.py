"""The offline store, Delta Lake tables in a folder or on S3: the archive, what is computed of it, small documents.

One noun per file; tables and columns are in docs/formats.md. It knows nothing of the online store.
"""
