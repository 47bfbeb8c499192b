"""Wallets with real keys: one that signs here, and the same in a page, announced as browser wallets are (EIP-6963)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from cotrain.identity.account import Account
from cotrain.identity.ethereum import EthereumSigner as EthereumAccount
from cotrain.identity.ethereum import encode_defunct

if TYPE_CHECKING:
    from tests.e2e.browser import Page

DECLINED = 4001
_ICON = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>"
_SCRIPT = """
(() => {
  const waiting = [];
  window.answerOfTestWallet = (number, isGood, answer) => waiting[number][isGood ? "resolve" : "reject"](answer);
  const provider = { request: ({ method, params }) => new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    askTestWallet(JSON.stringify({ number: waiting.length - 1, method, params }));
  }) };
  const details = INFOS.map((info) => Object.freeze({ info: Object.freeze(info), provider }));
  const announce = () => {
    for (const detail of details) dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  };
  addEventListener("eip6963:requestProvider", announce);
  announce();
})();
"""


class KeyWallet:
    """An Ethereum key that signs texts."""

    def __init__(self) -> None:
        self._key = EthereumAccount.create()
        self.account = Account.of("eip155:1", self._key.address)

    @property
    def short(self) -> str:
        """The address as the page shows it."""
        return f"{self.account.address[:6]}…{self.account.address[-4:]}"

    def sign(self, text: str) -> str:
        """An EIP-191 personal message: 65 bytes, 0x-hex."""
        return f"0x{self._key.sign_message(encode_defunct(text=text)).signature.hex()}"


async def sign_in(http: aiohttp.ClientSession, url: str, wallet: KeyWallet) -> str:
    """The token of a new sign-in over REST."""
    wanted = {"address": wallet.account.address, "chain": wallet.account.chain}
    async with http.post(f"{url}/api/v1/auth/challenge", json=wanted) as response:
        assert response.status == 200, await response.text()
        challenge = await response.json()
    answer = {"nonce": challenge["nonce"], "signature": wallet.sign(challenge["message"])}
    async with http.post(f"{url}/api/v1/auth/login", json=answer) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["token"])


class BrowserWallet:
    """The wallet that a page finds. It does what it is asked, unless it is told otherwise.

    Attributes:
        key: what it signs with.
        address: the account that it offers.
        chain_id: the chain it is on, as wallets write it.
        refusals: method -> the code with which the person declines.
        asked: the methods that it was asked, in order.
        hold: cleared, the wallet keeps its questions open.
    """

    def __init__(self, key: KeyWallet, page: Page):
        self._page = page
        self._answers: set[asyncio.Task[None]] = set()
        self.key = key
        self.address = key.account.address
        self.chain_id = "0x1"
        self.refusals: dict[str, int] = {}
        self.asked: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def install(self, *others: dict[str, str]) -> None:
        """Be there when the next page loads. `others`: what further wallets with the same key say of themselves."""
        own = {"uuid": "wallet-1", "name": "Test Wallet", "icon": _ICON, "rdns": "test.wallet"}
        await self._page.expose("askTestWallet", self._on_question)
        script = _SCRIPT.replace("INFOS", json.dumps([own, *others]))
        await self._page.run_first(script)

    async def is_asked(self, method: str) -> bool:
        """Whether it has been asked this."""
        return method in self.asked

    def _on_question(self, payload: str) -> None:
        question = json.loads(payload)
        task = asyncio.get_running_loop().create_task(self._answer(question))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, question: dict[str, Any]) -> None:
        method = question["method"]
        self.asked.append(method)
        await self.hold.wait()
        refusal = self.refusals.get(method)
        answer: Any = {"code": refusal, "message": "no"} if refusal else self._do(method, question["params"])
        call = f"answerOfTestWallet({question['number']}, {json.dumps(refusal is None)}, {json.dumps(answer)})"
        await self._page.evaluate(call)

    def _do(self, method: str, parameters: list[Any]) -> Any:
        if method == "eth_requestAccounts":
            return [self.address]
        if method == "eth_chainId":
            return self.chain_id
        if method == "wallet_switchEthereumChain":
            self.chain_id = parameters[0]["chainId"]
            return None
        assert method == "personal_sign", method
        data, address = parameters
        assert address == self.address
        return self.key.sign(bytes.fromhex(data.removeprefix("0x")).decode())
