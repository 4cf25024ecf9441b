// Calls through LangChain.js' `ChatAlibabaTongyi` into what their user sees; called, and printing, as document.py says,
// but started inside its environment: a module of Node's is looked for beside whoever asks for it.
import { createRequire } from "node:module";
import { json } from "node:stream/consumers";

const { ChatAlibabaTongyi } = createRequire(`${process.cwd()}/`)("@langchain/community/chat_models/alibaba_tongyi");

const apiUrl = `${process.argv[2]}/services/aigc/text-generation/generation`;

async function see(call) {
  const packets = [];
  try {
    for await (const message of answer(call.arguments)) packets.push(packet(message));
  } catch (error) {
    return { packets, failure: { kind: error.name, text: error.message } };
  }
  return { packets, failure: null };
}

async function* answer({ api_key, model, messages, stream, max_tokens, tools, parallel_tool_calls }) {
  const fields = { alibabaApiKey: api_key, model, apiUrl, streaming: stream, maxTokens: max_tokens, maxRetries: 0 };
  const tongyi = new ChatAlibabaTongyi(fields);
  if (stream) yield* await tongyi.stream(messages, { tools, parallel_tool_calls });
  else yield await tongyi.invoke(messages, { tools, parallel_tool_calls });
}

// A message or a chunk of one, in DashScope's form.
function packet(message) {
  const { request_id = null, finish_reason = null } = message.response_metadata;
  const fragments = message.tool_call_chunks?.map(({ index, id, name, args }) => ({
    index,
    id,
    function: { name, arguments: args },
  }));
  const calls = message.additional_kwargs.tool_calls?.map((call, index) => ({ index, ...call }));
  const shown = { content: message.content, tool_calls: fragments ?? calls ?? [] };
  const choices = [{ index: 0, finish_reason, message: shown }];
  return { request_id, usage: message.usage_metadata ?? null, output: { choices } };
}

const seen = {};
for (const [name, call] of Object.entries(await json(process.stdin))) seen[name] = await see(call);
console.log(JSON.stringify(seen));
