"""What was to be trained, as one hash."""

from __future__ import annotations

import hashlib


def config_hash(toml: str) -> bytes:
    """SHA-256 (32 bytes) over the UTF-8 bytes of a session's TOML, comments and line ends included.

    The text is the one that `GET /api/v1/sessions/{id}/config` answers: `cotrain.config.dump_config` has written it
    when the session was made, and nothing writes it again. So `sha256sum` of a saved copy says the same, and so does
    the ETag of that answer.
    """
    return hashlib.sha256(toml.encode()).digest()
