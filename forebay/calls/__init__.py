"""What callers hand in and what they get back: names, keys, tables, files; columns of values with statuses."""
