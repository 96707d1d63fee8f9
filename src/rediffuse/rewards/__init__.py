"""The rewards, one in each file; see `rediffuse.types.Reward`. Names that begin with an underscore
are shared parts.
"""
