"""Features over HTTP. Routes turn requests into calls of `forebay.FeatureStore` and answers into JSON; nothing is computed here."""
