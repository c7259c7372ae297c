"""Files and waveforms, their spectrograms, what a network sees of them, and back to sound."""
