"""The arithmetic that every path shares: exact 128-bit integers and mergeable partial aggregates, on NumPy arrays.

What may live here: pure functions of arrays. No definitions, no tiles, no time, no IO.
"""
