"""Reports on run folders. Imports no training code."""
