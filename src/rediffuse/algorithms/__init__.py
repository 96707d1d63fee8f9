"""One file per algorithm. See `rediffuse.types.Algorithm`."""
