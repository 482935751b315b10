"""The language in which features are declared: frozen values, checked when made; no IO, no engine."""
