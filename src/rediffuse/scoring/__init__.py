"""Computing rewards: calls, validation, weighted sums, storage and a server."""
