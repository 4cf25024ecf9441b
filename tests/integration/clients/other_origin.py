"""A page of one origin that calls another, in a real browser, into JSON: `python other_origin.py BROWSER PAGE URL…`."""

from __future__ import annotations

import json
import sys

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

# What an OpenAI client in a page does: a key, JSON, and headers of its own that need a preflight.
CALL = """async (url) => {
  try {
    const answer = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: {
        Authorization: "Bearer sk-reader",
        "Content-Type": "application/json",
        "x-stainless-lang": "js",
        "x-stainless-retry-count": "0",
      },
      body: JSON.stringify({ model: "deepseek-v3", messages: [{ role: "user", content: "hi" }], stream: true }),
    });
    return { status: answer.status, id: answer.headers.get("x-request-id"), body: await answer.text() };
  } catch (error) {
    return { error: error.name };
  }
}"""


def main(browser_path: str, page_url: str, *urls: str) -> None:
    """Open the page, and let it call each of these."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page()
        page.goto(page_url)
        print(json.dumps([page.evaluate(CALL, url) for url in urls]))  # noqa: T201 - the document
        browser.close()


main(*sys.argv[1:])
