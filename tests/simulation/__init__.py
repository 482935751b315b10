"""The seeded simulation: the flow's own steps in one process, under a scheduler that kills, pauses and loses things.

`python -m tests.simulation SEED` repeats one run.
"""
