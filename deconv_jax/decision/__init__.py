"""From features to the answer: what they do for the network's decision."""
