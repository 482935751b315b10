"""The pure core: events become tiles, tiles and an instant become values. No IO, no engine, no clock."""
