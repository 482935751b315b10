"""The demo: real flights through the same commands that a user has. Start it with `forebay demo`."""
