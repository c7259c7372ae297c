"""The paper's run (section 4): three genres, 4-second clips, five convolutional layers.

    bin/train --config=configs/genre3.py                                the built-in music
    bin/train --config=configs/genre3.py --config.data.root=DIR         your own: genre/song or genre/artist/song
    bin/train --config=configs/genre3.py --config.data.index=FILE       your own: a table of path, label and artist
    bin/train --config=configs/genre3.py:log                            log magnitude (mask reading only)
    bin/train --config=configs/genre3.py:augmented                      what learns more of few songs; see below
    bin/train --config=configs/genre3.py:builtin                        builtin3 of the package: 1,020 built-in songs

Every field can be changed from the command line, as in --config.train.epochs=10 or --config.network.block1.maps=32.

The printed network with its dropout learns slowly, and of few songs little that holds for others. Of 1,020 songs
(--config.data.songs_per_genre=340 --config.train.epochs=32 --config.train.patience=5) it names .96 of unheard clips
right, after two and a half hours of two cores: that is the network `genre3` that comes with this package.
"augmented" is the same five layers with batch norm and an average over what is left of time and frequency in the place
of the dense layers, hears every clip equally loud, and sees random crops that are equalised, masked, mixed and played
at other speeds. configs/music.py is the same for your own music. "builtin" is what made the packaged `builtin3`:
songs by the hundred need fewer changes, and so it learns faster. Its 1,500 steps take some 15 minutes of two cores. The
first time, playing 1,020 songs takes as long.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "log", "augmented", "builtin")


def get_config(variant: str = "") -> ConfigDict:
    """The run's settings.

    Args:
      variant: "" for the paper's, on the linear magnitude; "log" for the logarithm of it, standardised per frequency;
        "augmented" for the recipe that generalises; "builtin" for its form that made the packaged `builtin3`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"genre3.py has the variants {', '.join(map(repr, VARIANTS))}, not {variant!r}")
    config = ConfigDict()
    config.name = f"genre3-{variant}" if variant else "genre3"
    config.seed = 0

    config.front_end = ConfigDict()
    config.front_end.sample_rate = 11025  # Hz
    config.front_end.n_fft = 512
    config.front_end.hop = 256
    config.front_end.clip_seconds = 4.0
    config.front_end.scale = "log1p" if variant == "log" else "linear"
    config.front_end.level = "none"  # "clip": every clip is divided by its mean magnitude, so that none is loud

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
                "norm": "none",  # batch norm "before" the activation, "after" it, or of the "pooled" map
            }
        )
    config.network.dense = (512, 256)  # the paper gives no widths; these are the authors' early code's
    config.network.dropout = 0.5
    config.network.head = "flatten"  # or the "average" or "max" of every map, which fits clips of any length

    config.data = ConfigDict()
    config.data.root = ""  # a folder of genres, in which a second level is the artist; empty: the built-in music
    config.data.index = ""  # a table of tracks, CSV or TSV; root is then what its paths are relative to (or its folder)
    config.data.fold = ""  # "2/5": test on the second of five folds, validate on the third, train on the others
    config.data.seed = -1  # of the split; -1: config.seed. Runs of several seeds on one split have one number here
    config.data.artists = 0  # of each genre in training, for a learning curve; 0: all
    config.data.split_by = "artist"  # no artist is in two parts, where artists are known; "song": they may be
    config.data.songs_per_genre = 40  # of the built-in music
    config.data.clips_per_song = 10
    config.data.split = (0.825, 0.0875, 0.0875)  # songs for training, validation, test; without fold
    config.data.failed_share = 0.5  # of the songs that may be broken, silent or too short before the run stops
    config.data.shuffle_labels = False  # True: labels are dealt out at random, for a network that learns no genres

    config.train = ConfigDict()
    config.train.epochs = 3
    config.train.steps = 0  # length in steps, in place of epochs
    config.train.validation_steps = 0  # from one validation to the next; 0: an epoch
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3
    config.train.optimiser = "adam"  # or "adamw", with weight_decay
    config.train.weight_decay = 0.0
    config.train.warmup_steps = 0
    config.train.schedule = "constant"  # or "cosine": down to nothing at the end
    config.train.label_smoothing = 0.0
    config.train.average = 0.0  # decay of the running average of weights that is kept; 0: none
    config.train.sampling = "clips"  # or "artists": classes by turns, in each an artist, a song and a clip by chance
    config.train.crop_seconds = 0.0  # of the random stretch of a clip that is seen; 0: all of it
    config.train.patience = 0  # validations without a better one after which training ends; 0: not before its time
    config.train.enough = 0.0  # share of validation clips right, twice running, at which training ends; 0: goes on
    config.train.keep = "best"  # the weights of the best validation, or the "last"
    config.train.keep_all = False  # True: those of every validation beside them, and those before training
    config.train.teachers = ()  # folders of runs or networks whose mean probabilities are learnt, not the labels
    config.train.checkpoint_steps = 200  # besides every validation

    config.augment = ConfigDict()  # see deconv_jax/training/augmentation.py
    config.augment.speed = 0.0  # as a share, either way
    config.augment.mix = 0.0  # share of clips that get another of their class added
    config.augment.gain_db = 0.0  # either way
    config.augment.eq_db = 0.0  # either way
    config.augment.time_mask = 0.0  # largest share of the frames
    config.augment.frequency_mask = 0.0  # largest share of the rows
    if variant == "augmented":
        return _augmented(config)
    return _builtin(_augmented(config)) if variant == "builtin" else config


def _augmented(config: ConfigDict) -> ConfigDict:
    config.front_end.level = "clip"
    for number in range(1, 6):
        config.network[f"block{number}"].norm = "before"
        config.network[f"block{number}"].dropout = 0.0
    config.network.dense = ()
    config.network.dropout = 0.0
    config.network.head = "average"
    config.train.steps = 400
    config.train.validation_steps = 100
    config.train.optimiser = "adamw"
    config.train.weight_decay = 1e-2
    config.train.warmup_steps = 20
    config.train.schedule = "cosine"
    config.train.average = 0.98
    config.train.sampling = "artists"
    config.train.crop_seconds = 1.5
    config.augment.speed = 0.15
    config.augment.mix = 0.5
    config.augment.eq_db = 12.0
    config.augment.time_mask = 0.2
    config.augment.frequency_mask = 0.2
    return config


def _builtin(config: ConfigDict) -> ConfigDict:
    config.data.songs_per_genre = 340
    config.train.steps = 1500
    config.train.validation_steps = 300
    config.train.learning_rate = 2e-3
    config.augment.speed = 0.0
    config.augment.mix = 0.0
    config.augment.eq_db = 6.0
    config.augment.time_mask = 0.0
    config.augment.frequency_mask = 0.0
    return config
