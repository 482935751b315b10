"""The batch side: fold the archive into tiles, compute batch views, publish both to the online store.

Plain functions over the stores, with the clock passed in; who calls them when (Dagster, a test, a person) is not their
concern. They are loaded on demand: nothing that `import forebay` loads imports this package.
"""
