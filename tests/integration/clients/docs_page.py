"""The docs page in a real browser, into JSON of what a reader of it sees: `python docs_page.py ADMIN_URL`."""

from __future__ import annotations

import json
import sys
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


def call(
    page: Page, *, key: str = "sk-reader", message: str = "", cancel: bool = False, **boxes: bool
) -> dict[str, Any]:
    """Send one call, and read what the page shows of it when it has ended."""
    page.fill("#key", key)
    if message:
        page.fill("#message", message)
    for box, wanted in boxes.items():
        page.set_checked(f"#{box}", wanted)
    page.click("#send")
    if cancel:
        page.locator("#packets tbody tr").nth(2).wait_for()
        page.click("#cancel")
    page.locator("#send:enabled").wait_for()
    shown = ["status", "reasoning", "answer", "failure", "request_id", "input_tokens", "output_tokens", "total_tokens"]
    rows = page.locator("#packets tbody tr")
    return {name: page.locator(f"#{name}").text_content() for name in (*shown, "reasoning_tokens", "raw")} | {
        "packets": [rows.nth(number).locator("td").all_text_contents() for number in range(rows.count())]
    }


def converse(page: Page) -> dict[str, Any]:
    """A second turn, what went upstream for it, and the whole call as code to copy."""
    call(page, message='it\'s "so" \\ 好')
    page.fill("#reply", "And then?")
    page.click("#go_on")
    page.locator("#send:enabled").wait_for()
    page.locator("#fields tbody tr").first.wait_for(state="attached")
    page.wait_for_function("() => document.querySelector('#theirs').textContent.includes('And then?')")
    turns = page.locator("#turns p")
    return {
        "turns": turns.all_text_contents(),
        "status": page.locator("#status").text_content(),
        "theirs": json.loads(page.locator("#theirs").text_content() or "null"),
        "fields": page.locator("#fields tbody tr td:first-child").all_text_contents(),
        **{name: page.locator(f"#{name}").text_content() for name in ("curl", "sdk")},
    }


def read_on(browser: Browser, url: str) -> dict[str, Any]:
    """Who comes by an anchor, chooses a language, and reads on a phone."""
    page = browser.new_context(locale="en-US", reduced_motion="reduce").new_page()

    def place() -> list[Any]:
        # However busy the machine is: the section that the address names is marked in the end.
        page.wait_for_function(
            "() => !location.hash || document.querySelector('aside [aria-current]')?.hash === location.hash",
            timeout=10_000,
        )
        shown = page.locator("aside [aria-current]")
        return [
            page.evaluate("() => document.documentElement.lang"),
            page.evaluate("() => location.search + location.hash"),
            shown.first.get_attribute("href") if shown.count() else None,
        ]

    seen: dict[str, Any] = {}
    page.goto(f"{url}/docs#zh-5")
    seen["by an anchor"] = place()
    page.click("#language")
    seen["toggled"] = place()
    page.goto(f"{url}/docs?lang=zh")
    seen["by the address"] = place()
    page.evaluate("() => { location.hash = '#en-7'; }")
    seen["by a link"] = place()
    seen["contents"] = []
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(100)
        seen["contents"].append(page.evaluate("() => document.querySelector('#contents').open"))
    # On a phone no cell is cut, or stands beside another.
    seen["cells"] = page.evaluate(
        """() => [...document.querySelectorAll('article[lang=en] td')].every((cell) => {
            const { left, right } = cell.getBoundingClientRect();
            return left >= 0 && right <= innerWidth && cell.scrollWidth <= cell.clientWidth + 1;
        })"""
    )
    seen["edges"] = page.evaluate(
        """() => [...document.querySelectorAll('header .name, h1, section > h2, #call, aside')]
            .filter((one) => one.offsetParent && !one.closest('article'))
            .map((one) => Math.round(one.getBoundingClientRect().left))"""
    )
    return seen


def look(browser: Browser, url: str) -> dict[str, Any]:
    """Everything a reader does, in one visit."""
    complaints: list[str] = []
    asked: list[str] = []
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/docs")
    seen: dict[str, Any] = {"english": page.locator("h1:visible").all_inner_texts()}
    page.fill("#model", "deepseek-v3.2")
    seen["thinking"] = call(page, thinking=True)
    seen["cumulative"] = call(page, thinking=False, incremental=False)
    seen["reply"] = call(page, stream=False)
    seen["cancelled"] = call(page, stream=True, message='{"simulate": {"endless": true, "gap_s": 0.02}}', cancel=True)
    seen["broken"] = call(page, message='{"simulate": {"cut_after": 3}}')
    page.select_option("#api", "openai")
    seen["surface"] = page.locator(".native").is_visible(), page.input_value("#body")
    seen["chunks"] = call(page, thinking=True, message="你是谁？")
    seen["completion"] = call(page, thinking=False, stream=False)
    seen["chunks broken"] = call(page, stream=True, message='{"simulate": {"cut_after": 3}}')
    before = len(complaints)
    seen["chunks refused"] = call(page, key="")
    seen["told here"] = complaints[before:]
    del complaints[before:]
    page.select_option("#api", "dashscope")
    # The browser itself says of a status that it is an error.
    before = len(complaints)
    seen["refused"] = call(page, key="")
    seen["told"] = complaints[before:]
    del complaints[before:]
    seen["conversed"] = [converse(page)]
    page.select_option("#api", "openai")
    seen["conversed"].append(converse(page))
    page.click("#language")
    seen["chinese"] = page.locator("h1:visible").all_inner_texts()
    seen["kept"] = page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie]")
    seen["complaints"], seen["asked"] = complaints, asked
    for width in (360, 800, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        seen.setdefault("overflow", []).append(
            page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        )
    return seen


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[2], args=FLAGS)
    json.dump(look(browser, sys.argv[1]) | {"read": read_on(browser, sys.argv[1])}, sys.stdout)
    browser.close()
