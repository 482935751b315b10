"""The torture: real processes, real stores, a real broker; a seeded script that hits them while they work.

`make torture SEED=…` runs it. What the simulation proves of every instant between two operations, this proves of the
processes themselves: signals, sockets, files, servers that die and come back.
"""
