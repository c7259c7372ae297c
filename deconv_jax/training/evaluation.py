"""How good is it: results by clip and by song, and the baselines that a network has to beat."""

import librosa
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deconv_jax.corpus.store import Clips


def by_song(probabilities: np.ndarray, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities of each song's clips, shape (songs, classes), and the songs' labels, shape (songs,)."""
    songs, first = np.unique(clips.songs, return_index=True)
    means = np.stack([probabilities[clips.songs == song].mean(axis=0) for song in songs])
    return means, clips.labels[first]


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, balanced accuracy (mean recall of the classes that occur) and confusion counts (true, predicted).

    Args:
      probabilities: shape (n, classes); labels: shape (n,).
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((probabilities.shape[1],) * 2, int)
    np.add.at(confusion, (labels, predicted), 1)
    occurring = confusion.sum(axis=1) > 0
    recall = confusion.diagonal()[occurring] / confusion.sum(axis=1)[occurring]
    return {
        "n": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(recall.mean()),
        "confusion": confusion.tolist(),
    }


def clip_and_song_scores(probabilities: np.ndarray, clips: Clips) -> dict:
    """`scores` of the clips and of the songs."""
    return {"by_clip": scores(probabilities, clips.labels), "by_song": scores(*by_song(probabilities, clips))}


def log_mel(clips: Clips, sample_rate: int) -> np.ndarray:
    """Mean and deviation over time of every clip's log-mel spectrum (64 bands, dB), shape (clips, 128)."""
    rows = []
    for waveform in clips.waveforms:
        mel = librosa.feature.melspectrogram(
            y=waveform.astype(np.float32) / 32768, sr=sample_rate, n_fft=1024, hop_length=512, n_mels=64
        )
        level = librosa.power_to_db(mel, top_db=None)
        rows.append(np.concatenate([level.mean(axis=1), level.std(axis=1)]))
    return np.stack(rows)


def baselines(train: Clips, test: Clips, classes: int, sample_rate: int) -> dict:
    """Test results of what knows no deep learning, trained on the same clips.

    Returns:
      "majority": the commonest genre of the training clips, always; "mean log-mel": logistic regression on the
      clips' mean log-mel spectra; "log-mel mean and deviation": the same with the deviations over time.
    """
    majority = np.eye(classes)[np.bincount(train.labels, minlength=classes).argmax()]
    results = {"majority": clip_and_song_scores(np.tile(majority, (len(test.labels), 1)), test)}
    train_rows, test_rows = log_mel(train, sample_rate), log_mel(test, sample_rate)
    half = train_rows.shape[1] // 2
    for name, columns in (("mean log-mel", slice(half)), ("log-mel mean and deviation", slice(None))):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced"))
        model.fit(train_rows[:, columns], train.labels)
        probabilities = np.zeros((len(test.labels), classes))
        probabilities[:, model.classes_] = model.predict_proba(test_rows[:, columns])
        results[name] = clip_and_song_scores(probabilities, test)
    return results
