"""Policy updates: training rows, optimizer steps and the moving average of the weights."""
