"""cotrain: train a language model together, without a data centre."""

from importlib.metadata import PackageNotFoundError, version

PARENT_VARIABLE = "COTRAIN_PARENT_PID"
"""Environment variable by which a program of cotrain asks another that it starts to end with it."""

try:
    __version__ = version("cotrain")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
