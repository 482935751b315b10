"""Deploying: what applying the definitions would change, and the registry of what is deployed."""
