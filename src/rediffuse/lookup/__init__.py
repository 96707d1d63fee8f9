"""From a name in a configuration to the thing that it names, and what a stranger's file may ask
for.
"""
