"""Features over HTTP: requests become calls of `forebay.FeatureStore`, answers become JSON; nothing is computed here."""
