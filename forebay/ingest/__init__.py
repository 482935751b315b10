"""From what producers send to columns that every path shares: decoding, checks, rounding, expressions."""
