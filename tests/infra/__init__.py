"""The real parts that tests run on: servers started from their packaged binaries, one noun per file."""
