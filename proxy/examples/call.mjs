// Node 20 or newer: node call.mjs
const base = process.env.DASHSCOPE_HTTP_BASE_URL ?? "http://127.0.0.1:8080/api/v1";
const answer = await fetch(`${base}/services/aigc/text-generation/generation`, {
  method: "POST",
  headers: {
    "Authorization": `Bearer ${process.env.DASHSCOPE_API_KEY}`,
    "Content-Type": "application/json",
    "X-DashScope-SSE": "enable",
  },
  body: JSON.stringify({
    model: "deepseek-v3",
    input: { messages: [{ role: "user", content: "你是谁？" }] },
    parameters: { incremental_output: true },
  }),
});

function fail({ code, message, request_id }) {
  console.error(`${code}: ${message} (${request_id})`);
  process.exit(1);
}

if (!answer.ok) fail(await answer.json());
let rest = "", usage;
for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data:")) continue;
    const packet = JSON.parse(line.slice(5));
    if (packet.code) fail(packet);
    process.stdout.write(packet.output.choices[0].message.content);
    usage = packet.usage;
  }
}
console.log(`\n${usage.input_tokens} + ${usage.output_tokens} = ${usage.total_tokens} tokens`);
