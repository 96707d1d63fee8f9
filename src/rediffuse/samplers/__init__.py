"""One file per sampler. See `rediffuse.types.Sampler`."""
