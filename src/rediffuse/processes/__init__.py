"""Processes and threads: ranks, devices, cores, signals, and the detection of processes that
hang.
"""
