"""One file per prompt set. See `rediffuse.types.PromptSet`."""
