"""The prompt sets, one in each file. See `rediffuse.types.PromptSet`."""
