"""What Schemathesis does before it sends a request."""

from __future__ import annotations

import itertools
import re
from typing import Any

import schemathesis

HEADER = "Idempotency-Key"
KEY = re.compile(r"[!-~]{1,200}")
LONGEST_KEY = 200

_numbers = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Use no key twice: a repeated request is answered as the first time, also when what it made is gone again."""
    key = (case.headers or {}).get(HEADER)
    if isinstance(key, str) and KEY.fullmatch(key):
        case.headers[HEADER] = f"{next(_numbers)}-{key}"[:LONGEST_KEY]
