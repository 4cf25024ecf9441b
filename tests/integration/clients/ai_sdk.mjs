// Calls through Vercel's AI SDK into what their user sees; called, and printing, as document.py says.
import { createRequire } from "node:module";
import { json } from "node:stream/consumers";

const require = createRequire(`${process.cwd()}/`);
const { generateText, streamText, jsonSchema, tool } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { createDeepSeek } = require("@ai-sdk/deepseek");

const PROVIDERS = {
  "openai-compatible": (apiKey) =>
    createOpenAICompatible({ name: "dashseek", baseURL: process.argv[2], apiKey, includeUsage: true }),
  deepseek: (apiKey) => createDeepSeek({ baseURL: process.argv[2], apiKey }),
};

// A turn of OpenAI's protocol in the words of the SDK.
function turn({ role, content, tool_calls: calls, tool_call_id: toolCallId }) {
  if (calls)
    return {
      role,
      content: calls.map(({ id, function: { name, arguments: input } }) => ({
        type: "tool-call",
        toolCallId: id,
        toolName: name,
        input: JSON.parse(input),
      })),
    };
  if (role !== "tool") return { role, content };
  const result = { type: "tool-result", toolCallId, toolName: "get_weather", output: { type: "text", value: content } };
  return { role, content: [result] };
}

const SYSTEM = ["system", "developer"];

function spelled(model, { messages, tools, tool_choice: toolChoice, thinking, temperature, retries }) {
  const functions = (tools ?? []).map(({ function: { name, description, parameters } }) => [
    name,
    tool({ description, inputSchema: jsonSchema(parameters) }),
  ]);
  return {
    model,
    system: messages.filter(({ role }) => SYSTEM.includes(role)).map(({ content }) => content).join(),
    messages: messages.filter(({ role }) => !SYSTEM.includes(role)).map(turn),
    temperature,
    maxRetries: retries ?? 0,
    ...(functions.length ? { tools: Object.fromEntries(functions), toolChoice } : {}),
    ...(thinking
      ? { providerOptions: { dashseek: { enable_thinking: true }, deepseek: { thinking: { type: "enabled" } } } }
      : {}),
    onError() {},
  };
}

const told = async (answer) => ({
  text: await answer.text,
  reasoning: (await answer.reasoningText) ?? "",
  calls: (await answer.toolCalls).map(({ toolName, input }) => [toolName, JSON.stringify(input)]),
  finish: await answer.finishReason,
  usage: [(await answer.usage).inputTokens, (await answer.usage).outputTokens],
});

const answers = {};
for (const [name, { api, arguments: asked }] of Object.entries(await json(process.stdin))) {
  const words = spelled(PROVIDERS[api](asked.api_key)(asked.model), asked);
  const packets = [];
  let failure = null;
  try {
    if (asked.stream) {
      const leaving = new AbortController();
      const answer = streamText({ ...words, abortSignal: leaving.signal });
      let text = "",
        number = 0;
      for await (const part of answer.fullStream) {
        if (part.type === "text-delta") {
          text += part.text;
          if ((number += 1) === asked.leave_after) leaving.abort();
        }
        if (part.type === "error") {
          packets.push({ text });
          throw part.error;
        }
      }
      packets.push(leaving.signal.aborted ? { text } : await told(answer));
    } else packets.push(await told(await generateText(words)));
  } catch (error) {
    const code = error.data?.error?.code ?? error.code;
    failure = { kind: error.constructor.name, text: error.message ?? String(error), code, status: error.statusCode };
  }
  answers[name] = { packets, failure };
}
console.log(JSON.stringify(answers));
