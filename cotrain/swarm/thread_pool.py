"""torch's own threads after a fork."""

from __future__ import annotations

import torch


def renew_thread_pool() -> None:
    """Make torch safe for several new threads of a forked process; call it in a new thread, before there are others.

    If the parent had called `torch.set_num_threads`, each new thread's first operation asks for torch's thread pool.
    After a fork the first to ask replaces the inherited one, without a lock: two at once fail with "Invalid thread
    pool!".
    """
    torch.get_num_threads()
