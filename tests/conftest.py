"""Shared settings: Four fake CPU devices, and tests that fail on NaN and on silent rank promotion."""

import os
import shutil
import socket
import sys
import types
from pathlib import Path

from compiling import QUICK

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4 {QUICK}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_nans", True)

SHARED = Path(__file__).resolve().parents[2] / "shared"


LONG = ("cli", "experiments", "training", "system_kill", "system_devices", "page", "docs", "deconvolution", "studio")


def pytest_collection_modifyitems(items):
    """Long files begin first, so that at the end none is left to one process while the other has nothing to do."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


NO_BROWSER = (
    "no Chromium was found, so the pages were not tried in a browser: install one (Debian: apt-get install chromium) "
    "and `pip install playwright`, then run `pytest tests/test_page.py tests/test_studio.py`"
)


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """Programs that are asked for again are not compiled again; each process of the tests keeps its own."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.25)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def free_port():
    """A function that finds a port of this machine which nobody listens at."""

    def find() -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    return find


@pytest.fixture
def compiled_by(caplog):
    """A function that calls another and names what that compiled."""

    def names(call) -> list[str]:
        caplog.clear()
        with jax.log_compiles():
            call()
        return [r.getMessage().split(" with ")[0] for r in caplog.records if r.getMessage().startswith("Compiling")]

    return names


@pytest.fixture(scope="session")
def shared():
    """The folder of real excerpts and golden images that lies beside some checkouts."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"there is no {SHARED}: the test on real excerpts needs its golden images")
    return SHARED


@pytest.fixture
def without_torchvision(monkeypatch):
    """For zennit before version 1 and Quantus, which import it and use nothing of it here: it may not fit PyTorch."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        for name in ("Bottleneck", "BasicBlock"):
            setattr(sys.modules["torchvision.models.resnet"], name, type(name, (), {}))
