"""Your own music: what learns genres (or any other labels) from some dozens of artists upwards.

    bin/train --config.data.root=DIR --workdir=W           genre/song or genre/artist/song, any number of genres
    bin/train --config.data.index=FILE --workdir=W         a table of path, label and artist, such as GTZAN's or FMA's
    bin/train --config.data.root=DIR --config.train.steps=2000 --workdir=W    longer, which more artists are worth

The recipe is that of configs/genre3.py:augmented, where its fields are listed: level taken out of every clip, batch
norm, an average over time and frequency instead of dense layers, and crops that are changed in every way that leaves a
genre what it is. Artists help more than anything else: where they are known, none is in two parts. 400 steps take
about 200 s of one core; reading the music and testing the network are added to that.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run's settings."""
    config = runpy.run_path(str(Path(__file__).with_name("genre3.py")))["get_config"]("augmented")
    config.name = "music"
    config.data.clips_per_song = 20
    config.data.split = (0.7, 0.15, 0.15)
    return config
