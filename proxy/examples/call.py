"""One streamed call by the SDK (pip install dashscope), which reads DASHSCOPE_API_KEY by itself."""

import os
import sys

import dashscope

dashscope.base_http_api_url = os.environ.get("DASHSCOPE_HTTP_BASE_URL", "http://127.0.0.1:8080/api/v1")
for packet in dashscope.Generation.call(
    "deepseek-v3",
    messages=[{"role": "user", "content": "你是谁？"}],
    stream=True,
    incremental_output=True,
    result_format="message",
):
    if packet.status_code != 200:
        sys.exit(f"{packet.status_code} {packet.code}: {packet.message} ({packet.request_id})")
    print(packet.output.choices[0].message.content, end="", flush=True)
    usage = packet.usage
print(f"\n{usage.input_tokens} + {usage.output_tokens} = {usage.total_tokens} tokens")
