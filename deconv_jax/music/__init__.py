"""Built-in music, and the model signals of the experiments."""
