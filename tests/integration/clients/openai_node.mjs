// Calls through the OpenAI SDK for Node into what their user sees; called, and printing, as document.py says.
import { createRequire } from "node:module";
import { json } from "node:stream/consumers";

const { default: OpenAI } = createRequire(`${process.cwd()}/`)("openai");

function spelled({ api_key, retries, thinking, leave_after, ...words }) {
  if (thinking) words.enable_thinking = true;
  if (words.stream) words.stream_options = { include_usage: true };
  return words;
}

function whole(completion) {
  const { message, finish_reason: finish } = completion.choices[0];
  return {
    text: message.content ?? "",
    reasoning: message.reasoning_content ?? "",
    calls: (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]),
    finish,
    usage: [completion.usage.prompt_tokens, completion.usage.completion_tokens],
  };
}

function add(told, chunk) {
  if (chunk.usage) told.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
  for (const { delta, finish_reason } of chunk.choices) {
    told.text += delta.content ?? "";
    told.reasoning += delta.reasoning_content ?? "";
    told.finish = finish_reason ?? told.finish;
    for (const call of delta.tool_calls ?? []) {
      told.calls[call.index] ??= [call.function.name, ""];
      told.calls[call.index][1] += call.function.arguments;
    }
  }
}

const APIS = {
  async create(client, words, packets, leaveAfter) {
    const answer = await client.chat.completions.create(words);
    if (!words.stream) return packets.push(whole(answer));
    const told = { text: "", reasoning: "", calls: [], finish: null, usage: null };
    packets.push(told);
    let number = 0;
    for await (const chunk of answer) {
      add(told, chunk);
      if ((number += 1) === leaveAfter) break;
    }
  },
  async "stream helper"(client, words, packets) {
    packets.push(whole(await client.chat.completions.stream(words).finalChatCompletion()));
  },
};

const answers = {};
for (const [name, { api, arguments: asked }] of Object.entries(await json(process.stdin))) {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: asked.api_key, maxRetries: asked.retries ?? 0 });
  const packets = [];
  let failure = null;
  try {
    await APIS[api](client, spelled(asked), packets, asked.leave_after);
  } catch (error) {
    failure = { kind: error.constructor.name, text: error.message, code: error.code, status: error.status };
  }
  answers[name] = { packets, failure };
}
console.log(JSON.stringify(answers));
