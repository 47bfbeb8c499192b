"""The text that a wallet signs to sign in: EIP-4361 (https://eips.ethereum.org/EIPS/eip-4361), for Aptos AIP-116
(https://github.com/aptos-foundation/AIPs/blob/main/aips/aip-116.md).

Who verifies keeps the text and checks the signature over these very bytes; nothing here parses a text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cotrain.errors import ConfigError
from cotrain.identity.account import Account

STATEMENT = "Sign in to cotrain. This costs nothing and moves no money."

_APTOS_CHAIN_IDS = {"1": "aptos:mainnet", "2": "aptos:testnet"}
_DOMAIN = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9]{8,}", re.ASCII)


def sign_in_text(account: Account, *, domain: str, uri: str, nonce: str, issued_at: float, expires_at: float) -> str:
    """The text that signs `account` in, line by line as the standards have it.

    Args:
        account: who is to sign.
        domain: host, and port if it has one, of whom the signature is for.
        uri: the address that is signed in to.
        nonce: at least 8 letters and digits.
        issued_at: Unix time, seconds; written in UTC with milliseconds.
        expires_at: the same.

    Raises:
        ConfigError: a value that could not stand in its line, or would begin another one.
    """
    _check("domain", domain, _DOMAIN, "a host, with :port if it has one; an international name in its xn-- form")
    _check("uri", uri, _URI, "scheme://host and a path, without blanks")
    _check("nonce", nonce, _NONCE, "at least 8 letters and digits")
    name = "Ethereum" if account.namespace == "eip155" else "Aptos"
    head = f"{domain} wants you to sign in with your {name} account:\n{account.address}\n\n{STATEMENT}\n\n"
    chain = f"Chain ID: {_chain_id(account)}"
    times = [f"Issued At: {_rfc3339(issued_at)}", f"Expiration Time: {_rfc3339(expires_at)}"]
    if account.namespace == "eip155":
        fields = [f"URI: {uri}", "Version: 1", chain, f"Nonce: {nonce}", *times]
    else:
        fields = [f"URI: {uri}", "Version: 1", f"Nonce: {nonce}", *times, chain]
    return head + "\n".join(fields)


def _check(field: str, value: str, form: re.Pattern[str], hint: str) -> None:
    if form.fullmatch(value) is None:
        raise ConfigError("cannot stand in a text that wallets sign", field=field, hint=hint)


def _chain_id(account: Account) -> str:
    """EIP-4361 has the chain's number; wallets of Aptos have names for its two public networks."""
    if account.namespace == "eip155":
        return account.reference
    return _APTOS_CHAIN_IDS.get(account.reference, account.chain)


def _rfc3339(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
