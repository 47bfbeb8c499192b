"""`cotrain` on a machine whose clock is wrong: `shifted_clock.py SECONDS ARGUMENT...`, ahead by so many seconds."""

from __future__ import annotations

import sys
import time

off_s, read_clock = float(sys.argv.pop(1)), time.time
time.time = lambda: read_clock() + off_s

from cotrain.cli import main  # noqa: E402 - whatever is loaded sees this clock

if __name__ == "__main__":
    main()
