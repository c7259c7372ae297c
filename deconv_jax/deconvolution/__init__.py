"""From a layer's maps back to spectrograms."""
