"""The modalities: how each kind of sample is previewed, quantised and saved; one in each file."""
