"""From scores to new weights: training rows, the update, the moving average."""
