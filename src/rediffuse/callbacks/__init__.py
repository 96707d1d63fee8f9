"""The callback interface, and the callbacks that every run has."""
