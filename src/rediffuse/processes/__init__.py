"""Processes and threads: ranks, devices, cores, signals, and the watch over processes that hang."""
