"""One file per model family. See `rediffuse.types.ModelFamily`."""
