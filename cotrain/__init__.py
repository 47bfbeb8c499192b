"""cotrain: train a language model together, without a data centre."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cotrain")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
