curl -N "${DASHSCOPE_HTTP_BASE_URL:-http://127.0.0.1:8080/api/v1}/services/aigc/text-generation/generation" \
  -H "Authorization: Bearer $DASHSCOPE_API_KEY" -H 'Content-Type: application/json' -H 'X-DashScope-SSE: enable' \
  -d '{"model":"deepseek-v3","input":{"messages":[{"role":"user","content":"你是谁？"}]},"parameters":{"incremental_output":true}}'
