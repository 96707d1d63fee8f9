"""The configuration of a run: options with types and checks, recipes, and the reading of untrusted
files.
"""
