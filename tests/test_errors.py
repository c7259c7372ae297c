"""Errors know what was found; a command knows how its flags are called."""

import pickle

import pytest
from absl import flags

from deconv_jax.cli import launch
from deconv_jax.errors import InputError, SettingError


@pytest.mark.parametrize("kind", [InputError, SettingError])
def test_an_error_says_which_argument_it_is_about(kind):
    error = pickle.loads(pickle.dumps(kind("runs/a: holds no run", "workdir")))  # from worker processes
    assert (type(error), str(error)) == (kind, "workdir runs/a: holds no run")
    assert str(kind("a.wav: is empty")) == "a.wav: is empty"
    assert issubclass(SettingError, ValueError)


@pytest.mark.parametrize(
    ("defined", "error", "status", "line"),
    [
        (["out"], InputError("x: is taken", "out"), 1, "error: --out=x: is taken"),
        (["folds"], SettingError("2: too few", "folds"), 2, "error: --folds=2: too few"),
        (["index"], InputError("t.csv: is no text", "index"), 1, "error: --index=t.csv: is no text"),
        (["config"], InputError("t.csv: is no text", "index"), 1, "error: --config.data.index=t.csv: is no text"),
        (["config", "out"], InputError("x: is taken", "out"), 1, "error: --out=x: is taken"),
        (["out"], InputError("a.wav: is empty"), 1, "error: a.wav: is empty"),
    ],
)
def test_a_command_prints_its_own_flag(monkeypatch, capsys, defined, error, status, line):
    own = flags.FlagValues()
    for name in defined:
        flags.DEFINE_string(name, None, "", flag_values=own)
    monkeypatch.setattr(flags, "FLAGS", own)
    monkeypatch.setattr("sys.argv", ["command"])

    def main(_):
        raise error

    assert launch.launch(main, __name__, "") == status
    assert capsys.readouterr().err.strip() == line
