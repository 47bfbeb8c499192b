"""Signing in on the web page: a real browser and coordinator, and a wallet that signs with a real key."""

from __future__ import annotations

import pytest
import pytest_asyncio

from cotrain.status import now
from tests.e2e.browser import CHROMIUM, Page
from tests.e2e.page_fixtures import eventually
from tests.e2e.page_stage import COOKIE, Stage, browser, page, stage, url
from tests.e2e.wallet_fixtures import DECLINED, BrowserWallet, KeyWallet

__all__ = ["browser", "page", "stage", "url"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]

FOREIGN_WALLET = {
    "uuid": "wallet-2", "name": "<img src=x onerror=alert(1)>", "icon": "https://wallet.example/i.png", "rdns": "x",
}  # fmt: skip
BUTTONS = (
    "[...document.querySelectorAll('#actions:not([hidden]) button')].map((button) => button.dataset.action).join()"
)


@pytest_asyncio.fixture(loop_scope="module")
async def wallet(stage: Stage) -> BrowserWallet:
    """The owner's wallet in the browser of the stage, among others."""
    wallet = BrowserWallet(stage.owner, stage.page)
    await wallet.install(FOREIGN_WALLET)
    return wallet


async def open_wallets(page: Page) -> None:
    await page.until("document.querySelector('#sign-in').checkVisibility()")
    await page.click("#sign-in")
    await page.until("document.querySelector('#sign-in-dialog').open")


async def sign_page_in(stage: Stage) -> None:
    await open_wallets(stage.page)
    await stage.page.click("[data-wallet=wallet-1]")
    await stage.page.until_text("#account", stage.owner.short)


async def is_token_alive(stage: Stage, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    async with stage.http.get(f"{stage.api.url}/api/v1/auth/me", headers=headers) as response:
        assert response.status in (200, 401)
        return response.status == 200


async def token_of_page(stage: Stage) -> str:
    cookie = await stage.page.cookie(stage.api.url, COOKIE)
    assert cookie is not None
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Strict"
    return str(cookie["value"])


async def test_who_opened_a_session_signs_in_with_a_wallet_and_steers_it(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    await stage.open_session()
    await page.until_text("#steering", f"Only {stage.owner.short}, who opened this session, and operators")
    assert await page.evaluate(BUTTONS) == ""

    await open_wallets(page)
    assert await page.evaluate("document.querySelector('[data-wallet=wallet-1]') === document.activeElement")
    assert await page.until("document.querySelector('[data-wallet=wallet-1] img').naturalWidth") == 8
    assert await page.text("[data-wallet=wallet-2]") == FOREIGN_WALLET["name"]
    assert await page.evaluate("document.querySelectorAll('[data-wallet=wallet-2] img').length") == 0
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#account", stage.owner.short)
    await page.until("document.activeElement.id === 'sign-out'")
    assert wallet.asked == ["eth_requestAccounts", "eth_chainId", "personal_sign"]
    assert await page.evaluate(BUTTONS) == "start,cancel"
    assert await page.text("#steering") == ""

    await page.click("[data-action=cancel]")
    await page.until("document.querySelector('#confirm').open")
    await page.click("#confirm-yes")
    await page.until_text("#state", "cancelled")
    assert await stage.status() == "cancelled"
    assert page.alarms == []
    assert page.foreign_requests(stage.api.url) == []


async def test_signed_out_nothing_can_be_steered_and_the_token_is_dead(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    await stage.open_session()
    await sign_page_in(stage)
    token = await token_of_page(stage)
    assert await is_token_alive(stage, token)

    await page.click("#sign-out")

    await page.until("document.activeElement.id === 'sign-in'")
    assert await page.evaluate(BUTTONS) == ""
    await page.until_text("#steering", stage.owner.short)
    assert await page.text("#account") == ""
    assert await page.cookie(stage.api.url, COOKIE) is None
    assert not await is_token_alive(stage, token)
    assert page.alarms == []


async def end_token(stage: Stage, token: str) -> None:
    """Sign out as another tab of the same browser would."""
    headers = {"Authorization": f"Bearer {token}"}
    async with stage.http.post(f"{stage.api.url}/api/v1/auth/logout", headers=headers) as response:
        assert response.status == 204


async def test_a_page_hears_of_a_sign_out_in_another_tab(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    await stage.open_session()
    await sign_page_in(stage)
    await end_token(stage, await token_of_page(stage))
    await page.evaluate("new BroadcastChannel('cotrain.identity').postMessage('changed')")
    await page.until_text("#sign-in", "Sign in")
    assert await page.evaluate(BUTTONS) == ""
    assert page.alarms == []


async def test_an_action_after_the_sign_in_has_ended_is_refused_in_words(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    await stage.open_session()
    await sign_page_in(stage)
    await end_token(stage, await token_of_page(stage))
    await page.click("[data-action=start]")
    await page.until_text("#sign-in", "Sign in")
    await page.until_text("#problem", "sign in")
    assert await page.evaluate(BUTTONS) == ""
    assert await stage.status() == "draft"


async def test_somebody_else_who_is_signed_in_may_only_watch(stage: Stage) -> None:
    page, stranger = stage.page, KeyWallet()
    await BrowserWallet(stranger, page).install()
    await stage.open_session()
    await open_wallets(page)
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#account", stranger.short)
    await page.until_text("#steering", stage.owner.short)
    assert await page.evaluate(BUTTONS) == ""
    assert page.alarms == []


async def test_a_signature_that_the_person_declines_is_told(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    wallet.refusals["personal_sign"] = DECLINED
    await stage.open_session()
    await open_wallets(page)
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#sign-in-problem", "You declined in the wallet. Nothing has been signed.")
    assert await page.text("#account") == ""

    wallet.refusals.clear()
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#account", stage.owner.short)
    assert page.alarms == []


async def test_a_wallet_on_another_chain_is_asked_to_switch(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    wallet.chain_id = "0x89"
    await stage.open_session()
    await open_wallets(page)
    await page.click("[data-wallet=wallet-1]")
    await page.until_text(
        "#sign-in-problem", "The wallet is on chain 137; this coordinator takes accounts of Ethereum."
    )

    wallet.refusals["wallet_switchEthereumChain"] = DECLINED
    await page.click("#sign-in-switch")
    await page.until_text("#sign-in-problem", "You declined")
    wallet.refusals.clear()
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#sign-in-switch", "Switch to Ethereum")
    await page.click("#sign-in-switch")

    await page.until_text("#account", stage.owner.short)
    assert wallet.chain_id == "0x1"


async def test_a_signature_by_another_key_is_refused_in_words(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    wallet.key = KeyWallet()
    await stage.open_session()
    await open_wallets(page)
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#sign-in-problem", "the sign-in was refused")
    assert await page.cookie(stage.api.url, COOKIE) is None


async def test_an_answer_after_the_dialog_was_closed_signs_nobody_in(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    wallet.hold.clear()
    await stage.open_session()
    await open_wallets(page)
    await page.click("[data-wallet=wallet-1]")
    await page.until_text("#sign-in-text", "Test Wallet asks which account to use.")
    await page.press("Escape")
    await page.until("document.activeElement.id === 'sign-in'")
    assert not await page.evaluate("document.querySelector('#sign-in-dialog').open")

    wallet.hold.set()
    await eventually(lambda: wallet.is_asked("eth_chainId"), "the wallet goes on")
    assert await page.text("#account") == ""

    # whatever the first attempt still does it does before the second one has come to its end
    await sign_page_in(stage)
    attempt = ["eth_requestAccounts", "eth_chainId"]
    assert wallet.asked == [*attempt, *attempt, "personal_sign"]
    assert len([url for url in page.requests if url.endswith("/auth/challenge")]) == 1
    assert page.alarms == []


async def test_without_a_wallet_one_is_told_that_watching_needs_none(stage: Stage) -> None:
    page = stage.page
    await stage.open_session()
    await open_wallets(page)
    await page.until_text("#sign-in-text", "No wallet was found in this browser. Watching sessions needs none;")
    await page.click("#sign-in-close")
    await page.until("document.activeElement.id === 'sign-in'")
    assert page.alarms == []


async def test_a_page_that_comes_back_late_takes_a_new_token(stage: Stage, wallet: BrowserWallet) -> None:
    page = stage.page
    await stage.open_session()
    await sign_page_in(stage)
    token = await token_of_page(stage)
    renew_at = float(await page.evaluate("localStorage.getItem('cotrain.renewAt')"))
    week_ms = 7 * 24 * 3600 * 1000
    assert abs(renew_at - now() * 1000 - week_ms / 2) < 60_000

    await page.evaluate("localStorage.setItem('cotrain.renewAt', '1')")
    await page.open("about:blank")
    await stage.open_session()

    await page.until("Number(localStorage.getItem('cotrain.renewAt')) > Date.now() + 3 * 24 * 3600 * 1000")
    assert await token_of_page(stage) != token
    assert not await is_token_alive(stage, token)
    assert await page.text("#account") == stage.owner.short
    assert await page.evaluate(BUTTONS) == "start,cancel"
    assert page.alarms == []
