"""The text that wallets sign: to the byte what viem and Aptos's own siwa make of the same fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotrain.errors import ConfigError
from cotrain.identity.account import Account
from cotrain.identity.text import sign_in_text

ETHEREUM = Account.of("eip155:11155111", "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F")
APTOS = Account.of("aptos:1", "0x147e4d3a5b10eaed2a93536e284c23096dfcea9ac61f0a8420e5d01fbd8f0ea8")
FIELDS: dict[str, Any] = {
    "domain": "train.example:8443", "uri": "https://train.example:8443/", "nonce": "0123456789abcdef0123456789abcdef",
    "issued_at": 1763740800.25, "expires_at": 1763741100.25,
}  # fmt: skip

# made with viem 2.57.20, createSiweMessage
SIWE = """\
train.example:8443 wants you to sign in with your Ethereum account:
0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F

Sign in to cotrain. This costs nothing and moves no money.

URI: https://train.example:8443/
Version: 1
Chain ID: 11155111
Nonce: 0123456789abcdef0123456789abcdef
Issued At: 2025-11-21T16:00:00.250Z
Expiration Time: 2025-11-21T16:05:00.250Z"""

# made with @aptos-labs/siwa 0.4.0, createSignInMessage
SIWA = """\
train.example:8443 wants you to sign in with your Aptos account:
0x147e4d3a5b10eaed2a93536e284c23096dfcea9ac61f0a8420e5d01fbd8f0ea8

Sign in to cotrain. This costs nothing and moves no money.

URI: https://train.example:8443/
Version: 1
Nonce: 0123456789abcdef0123456789abcdef
Issued At: 2025-11-21T16:00:00.250Z
Expiration Time: 2025-11-21T16:05:00.250Z
Chain ID: aptos:mainnet"""


def test_the_texts_are_the_libraries_own() -> None:
    assert sign_in_text(ETHEREUM, **FIELDS) == SIWE
    assert sign_in_text(APTOS, **FIELDS) == SIWA


@pytest.mark.parametrize(("chain", "line"), [("aptos:2", "aptos:testnet"), ("aptos:177", "aptos:177")])
def test_a_network_of_aptos_goes_by_its_name_if_it_has_one(chain: str, line: str) -> None:
    text = sign_in_text(Account.of(chain, APTOS.address), **FIELDS)
    assert text == SIWA.replace("aptos:mainnet", line)


@pytest.mark.parametrize(
    "domain", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "xn--bcher-kva.example", "a-b_c.example"]
)
def test_every_form_of_a_host_can_be_signed_in_to(domain: str) -> None:
    text = sign_in_text(ETHEREUM, **{**FIELDS, "domain": domain, "uri": f"http://{domain}"})
    assert text.startswith(f"{domain} wants you to sign in")
    assert f"\nURI: http://{domain}\n" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("domain", ""), ("domain", "bücher.example"), ("domain", "a b"), ("domain", "a.example\nURI: https://b.example"),
        ("domain", "https://a.example"), ("domain", "user@a.example"), ("domain", "a.example:port"), ("domain", "a\n"),
        ("uri", ""), ("uri", "/path"), ("uri", "https://"), ("uri", "https://a.example/\nNonce: 0"),
        ("uri", "https://a.example/ b"), ("uri", "https://bücher.example"), ("uri", "https://a.example\n"),
        ("nonce", ""), ("nonce", "1234567"), ("nonce", "12345678\n"), ("nonce", "1234 5678"), ("nonce", "1234567é"),
    ],
)  # fmt: skip
def test_no_value_can_break_out_of_its_line(field: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sign_in_text(ETHEREUM, **{**FIELDS, field: value})
    assert caught.value.field == field
    assert caught.value.hint


accounts = st.one_of(
    st.builds(
        lambda chain, raw: Account.of(f"eip155:{chain}", "0x" + raw.hex()),
        st.integers(1, 10**9), st.binary(min_size=20, max_size=20),
    ),
    st.builds(
        lambda chain, raw: Account.of(f"aptos:{chain}", "0x" + raw.hex()),
        st.integers(1, 10**9), st.binary(min_size=32, max_size=32),
    ),
)  # fmt: skip
fields = st.fixed_dictionaries(
    {
        "domain": st.from_regex(r"[a-z]{1,9}\.example(:[1-9][0-9]{3})?", fullmatch=True),
        "uri": st.from_regex(r"https://[a-z]{1,9}\.example/[a-z]{0,4}", fullmatch=True),
        "nonce": st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
        "issued_at": st.integers(0, 4 * 10**9),
        "expires_at": st.integers(0, 4 * 10**9),
    }
)


@given(accounts, fields, accounts, fields)
def test_two_texts_are_alike_only_if_all_their_fields_are(
    one: Account, its: dict[str, Any], other: Account, others: dict[str, Any]
) -> None:
    alike = sign_in_text(one, **its) == sign_in_text(other, **others)
    assert alike == (one == other and its == others)
    assert len(sign_in_text(one, **its).split("\n")) == 11
    for name in its:
        changed = sign_in_text(one, **{**its, name: others[name]})
        assert (changed == sign_in_text(one, **its)) == (its[name] == others[name])
