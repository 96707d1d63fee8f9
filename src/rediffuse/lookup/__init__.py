"""Building the components that a configuration names, and permissions for what untrusted files
request.
"""
