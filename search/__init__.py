"""What runs: data, training, workers and the command line."""
