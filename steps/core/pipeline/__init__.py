"""What a step is, in which order steps run, and the engine that runs them."""
