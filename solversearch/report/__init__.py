"""What people look at. Pictures are files, which need no display: a backend that is not installed, as a notebook's, does not matter."""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", None)) is not None:
    # matplotlib fails at its import where it does not know the backend; those who draw themselves get it afterwards, as without us.
    try:
        with suppress(ImportError, ValueError):
            import matplotlib

            matplotlib.rcParams["backend"] = _backend
    finally:
        os.environ["MPLBACKEND"] = _backend
