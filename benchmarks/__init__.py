"""What it takes: this project side by side with others, on the test hosts. `benchmarks/run --help`."""
