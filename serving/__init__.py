"""Features over HTTP: requests become calls of `forebay.FeatureStore`, answers JSON; nothing is computed here."""
