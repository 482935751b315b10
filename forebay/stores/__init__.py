"""The two stores: Redis (online) and Delta Lake tables (offline). One noun per file; formats are in docs/formats.md."""
