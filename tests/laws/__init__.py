"""The laws: what must hold for any events, checked against the oracle under hypothesis."""
