"""The same call on the compatible surface, by OpenAI's SDK (pip install openai)."""

import os
import sys

from openai import APIError, OpenAI

client = OpenAI(
    api_key=os.environ.get("DASHSCOPE_API_KEY"),
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/compatible-mode/v1"),
)
try:
    for chunk in client.chat.completions.create(
        model="deepseek-v3",
        messages=[{"role": "user", "content": "你是谁？"}],
        stream=True,
        stream_options={"include_usage": True},
    ):
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        usage = chunk.usage
except APIError as error:
    sys.exit(f"{error.code}: {error.message}")
print(f"\n{usage.prompt_tokens} + {usage.completion_tokens} = {usage.total_tokens} tokens")
