"""The Python client: online features, training sets, history."""
