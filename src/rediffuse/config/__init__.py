"""A whole run as data: its options with their types and checks, recipes, and files that anybody may
have written.
"""
