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

function spelled(model, { messages, tools, thinking, temperature, retries }) {
  const functions = (tools ?? []).map(({ function: { name, description, parameters } }) => [
    name,
    tool({ description, inputSchema: jsonSchema(parameters) }),
  ]);
  return {
    model,
    system: messages.filter(({ role }) => role === "system").map(({ content }) => content).join(),
    messages: messages.filter(({ role }) => role !== "system"),
    temperature,
    maxRetries: retries ?? 0,
    ...(functions.length ? { tools: Object.fromEntries(functions) } : {}),
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
      const answer = streamText(words);
      let text = "";
      for await (const part of answer.fullStream) {
        if (part.type === "text-delta") text += part.text;
        if (part.type === "error") {
          packets.push({ text });
          throw part.error;
        }
      }
      packets.push(await told(answer));
    } else packets.push(await told(await generateText(words)));
  } catch (error) {
    const code = error.data?.error?.code ?? error.code;
    failure = { kind: error.constructor.name, text: error.message ?? String(error), code, status: error.statusCode };
  }
  answers[name] = { packets, failure };
}
console.log(JSON.stringify(answers));
