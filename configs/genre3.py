"""The paper's run (section 4): three genres, 4-second clips, five convolutional layers.

    bin/train --config=configs/genre3.py                                the built-in music
    bin/train --config=configs/genre3.py --config.data.root=DIR         your own: genre/song or genre/artist/song
    bin/train --config=configs/genre3.py --config.data.index=FILE       your own: a table of path, label and artist
    bin/train --config=configs/genre3.py:log                            log magnitude (mask reading only)

Every field can be changed from the command line, as in --config.train.epochs=10 or --config.network.block1.maps=32.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The run's settings.

    Args:
      variant: "" for the linear magnitude, "log" for the logarithm of it, standardised per frequency.
    """
    if variant not in ("", "log"):
        raise ValueError(f'genre3.py has the variants "" and "log", not {variant!r}')
    config = ConfigDict()
    config.name = "genre3-log" if variant else "genre3"
    config.seed = 0

    config.front_end = ConfigDict()
    config.front_end.sample_rate = 11025  # Hz
    config.front_end.n_fft = 512
    config.front_end.hop = 256
    config.front_end.clip_seconds = 4.0

    config.network = ConfigDict()
    for number in range(1, 6):
        config.network[f"block{number}"] = ConfigDict(
            {
                "maps": 64,
                "kernel": (3, 3),
                "padding": "SAME",
                "use_bias": True,
                "pool": (2, 2),
                "stride": (2, 2),
                "dropout": 0.5,
            }
        )
    config.network.dense = (512, 256)  # the paper gives no widths; these are the authors' early code's
    config.network.dropout = 0.5
    config.network.log = variant == "log"

    config.data = ConfigDict()
    config.data.root = ""  # a folder of genres, in which a second level is the artist; empty: the built-in music
    config.data.index = ""  # a table of tracks, CSV or TSV; root is then what its paths are relative to (or its folder)
    config.data.fold = ""  # "2/5": test on the second of five folds, validate on the third, train on the others
    config.data.split_by = "artist"  # no artist is in two parts, where artists are known; "song": they may be
    config.data.songs_per_genre = 40  # of the built-in music
    config.data.clips_per_song = 10
    config.data.split = (0.825, 0.0875, 0.0875)  # songs for training, validation, test; without fold
    config.data.shuffle_labels = False  # True: labels are dealt out at random, for a network that learns no genres

    config.train = ConfigDict()
    config.train.epochs = 3
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3  # Adam
    config.train.checkpoint_steps = 200  # besides the end of every epoch
    return config
