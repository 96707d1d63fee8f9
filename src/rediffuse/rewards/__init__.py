"""One file per reward. See `rediffuse.types.Reward`."""
