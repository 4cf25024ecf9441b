"""The page of the calls in a real browser, into JSON of what a reader of it sees: `calls_page.py ADMIN_URL CHROMIUM`.

Where a folder is named behind them, pictures of it are left there for a person to look at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]
PICTURES = Path(sys.argv[3]) if len(sys.argv) > 3 else None


# What is looked at, by the words that find it.
FOUND = {
    "stray": "stray",
    "refused": "InvalidApiKey",
    "zeros": "deepseek-v3.2-exp",
    "cut": "deepseek-r1-0528",
    "tool": "deepseek-v3.1",
    "counted": "deepseek-v3.2",
}


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)


def find(page: Page, words: str) -> dict[str, Any]:
    """The one call that a search finds, opened: what its row, its cause, its marks and its time line say."""
    page.keyboard.press("Escape")
    page.fill("#search", words)
    row = page.locator("#list li:visible").first
    row.click()
    page.wait_for_function(
        "(number) => document.querySelector('#file').href.endsWith(`/${number}`)", arg=row.get_attribute("id")[5:]
    )
    page.locator("#title code").wait_for()
    return {
        "row": row.inner_text(),
        "found": page.locator("#list li:visible").count(),
        "cause": page.locator("#cause").inner_text(),
        "account": page.locator("#account").inner_text(),
        "marks": page.locator("#line .mark").all_inner_texts(),
        "line": page.locator("#line").inner_text(),
        "came": page.locator("#came").inner_text(),
        "headers": page.locator("#came details").first.text_content() if page.locator("#came details").count() else "",
        "lacks": page.locator("#lacks").inner_text(),
        "copies": [one.get_attribute("data-copy") for one in page.locator("[data-copy]:visible").all()],
        "images": page.locator("#line img, #list img, #came img").count(),
    }


def copied(page: Page, what: str) -> str:
    page.click(f"[data-copy={what}]")
    text = page.locator("#copied").text_content() or ""
    page.click("#close")
    return text


def look(browser: Browser, url: str) -> dict[str, Any]:
    complaints: list[str] = []
    asked: list[str] = []
    context = browser.new_context(locale="en-US", viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/calls")
    page.wait_for_function("() => document.querySelectorAll('#list li').length === 200")
    seen: dict[str, Any] = {"rows": page.locator("#list li").count(), "open": page.locator("#list .badge.open").count()}
    picture(page, "list")

    # A stream that goes on is watched: its rows grow by themselves.
    page.keyboard.press("j")
    page.locator("#line .row").nth(3).wait_for()
    before = page.locator("#line .row").count()
    page.wait_for_function("(before) => document.querySelectorAll('#line .row').length > before", arg=before)
    seen["grows"] = True
    picture(page, "open")
    page.keyboard.press("Escape")
    seen["closed"] = page.locator("#one").is_hidden()
    page.keyboard.press("/")
    seen["searching"] = page.evaluate("() => document.activeElement.id")

    seen["markup"] = find(page, "deepseek-r1")
    picture(page, "one")
    seen["curl"], seen["python"] = copied(page, "curl"), copied(page, "python")
    seen["golden"], seen["upstream"] = copied(page, "golden"), copied(page, "upstream")
    for name, words in FOUND.items():
        seen[name] = find(page, words)
        picture(page, name)
    page.fill("#search", "")
    page.select_option("#which", "failed")
    seen["failed"] = page.locator("#list li:visible").count()
    page.select_option("#which", "all")
    page.click("#language")
    seen["chinese"] = page.locator("h2:visible").all_inner_texts()
    for name in ("tool", "stray"):
        seen[f"{name}_zh"] = find(page, FOUND[name])
        picture(page, f"{name}-zh")
    seen["kept"] = page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie]")
    for width in (360, 800, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        seen.setdefault("overflow", []).append(
            page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        )
        picture(page, f"at-{width}")
    page.emulate_media(color_scheme="dark")
    picture(page, "dark")
    seen["complaints"], seen["asked"] = complaints, asked
    return seen


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[2], args=FLAGS)
    json.dump(look(browser, sys.argv[1]), sys.stdout)
    browser.close()
