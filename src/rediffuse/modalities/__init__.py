"""Kinds of sample: how each is shown on a page, kept in a file, and read back from it. One file a
kind.
"""
