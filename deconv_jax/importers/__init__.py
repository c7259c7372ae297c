"""Weights from elsewhere → a network file. Each module reads one kind of source; `stack` puts its layers together."""
