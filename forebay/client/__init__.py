"""The Python client: `FeatureStore`, what is deployed, online reads, and two versions beside each other."""
