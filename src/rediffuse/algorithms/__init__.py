"""The algorithms, one in each file. See `rediffuse.types.Algorithm`."""
