"""The samplers, one in each file. See `rediffuse.types.Sampler`."""
