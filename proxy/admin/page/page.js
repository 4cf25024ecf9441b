"use strict";

const $ = (id) => document.getElementById(id);

// The language of the reader, until told otherwise; nothing is stored.
const root = document.documentElement;
const speak = (language) => { root.lang = language; };
speak(navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
$("language").addEventListener("click", () => speak(root.lang === "zh" ? "en" : "zh"));

// The form writes the JSON; whoever edits the JSON has the last word, until the form is touched again.
const openai = () => $("api").value === "openai";
function compose() {
  const model = $("model").value;
  const messages = [{ role: "user", content: $("message").value }];
  const body = openai() ? { model, messages } : { model, input: { messages }, parameters: {} };
  if (openai() && $("stream").checked) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  if (!openai() && $("incremental").checked) body.parameters.incremental_output = true;
  if ($("thinking").checked) (body.parameters ?? body).enable_thinking = true;
  $("body").value = JSON.stringify(body, null, 2);
  document.querySelector(".native").hidden = openai();
}
for (const id of ["api", "model", "message", "incremental", "thinking"]) $(id).addEventListener("input", compose);
// A header of DashScope's, a field of OpenAI's.
$("stream").addEventListener("input", () => { if (openai()) compose(); });
compose();

let call = null;

function row(cells, broken) {
  const line = $("packets").tBodies[0].insertRow();
  if (broken) line.className = "broken";
  for (const cell of cells) line.insertCell().textContent = cell ?? "";
  $("count").textContent = $("packets").tBodies[0].rows.length;
}

function fail({ code, message, request_id }, status) {
  $("failure").hidden = false;
  $("failure").textContent = `${status ? `${status} ` : ""}${code}: ${message}`;
  if (request_id) $("request_id").textContent = request_id;
}

// What either surface says went wrong; nothing where nothing did.
function faultOf(said) {
  const { error } = said;
  return error ? { code: error.code ?? error.type, message: error.message, request_id: said.request_id } : said.code && said;
}

// A packet, a chunk or a reply of either surface, under the names of DashScope.
function choiceOf(said) {
  if (said.output) return { ...said.output.choices[0], usage: said.usage, request_id: said.request_id };
  const { delta, message = delta ?? {}, finish_reason } = said.choices[0] ?? {};
  const { prompt_tokens, completion_tokens, total_tokens, completion_tokens_details } = said.usage ?? {};
  const usage = said.usage && {
    input_tokens: prompt_tokens,
    output_tokens: completion_tokens,
    total_tokens,
    output_tokens_details: completion_tokens_details,
  };
  return { message, finish_reason, usage, request_id: said.id.replace("chatcmpl-", "") };
}

// Increments add to the text, cumulative packets replace it.
function show(id, said, since, adds) {
  const { message, finish_reason, usage, request_id } = choiceOf(said);
  for (const [name, text] of [["reasoning", message.reasoning_content], ["answer", message.content]]) {
    const place = $(name);
    if (adds) place.append(text ?? ""); else place.textContent = text ?? "";
  }
  for (const { function: { name, arguments: given } } of message.tool_calls ?? []) $("answer").append(`${name ? `${name} ` : ""}${given}`);
  $("chain").hidden = !$("reasoning").textContent;
  if (usage) {
    for (const name of ["input_tokens", "output_tokens", "total_tokens"]) $(name).textContent = usage[name];
    $("reasoning_tokens").textContent = usage.output_tokens_details?.reasoning_tokens ?? "–";
  }
  $("request_id").textContent = request_id;
  row([id, since, message.reasoning_content, message.content, finish_reason, usage?.input_tokens, usage?.output_tokens, usage?.total_tokens]);
}

async function read(answer, started, adds) {
  const since = () => Math.round(performance.now() - started);
  if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    const text = await answer.text();
    $("raw").append(text);
    const said = JSON.parse(text), fault = faultOf(said);
    if (fault) fail(fault, answer.status); else show("–", said, since(), false);
    return;
  }
  let rest = "", id = "", status = "", number = 0;
  const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await lines.read(); !piece.done; piece = await lines.read()) {
    $("raw").append(piece.value);
    const whole = (rest + piece.value).split("\n");
    rest = whole.pop();
    for (const line of whole) {
      if (line.startsWith("id:")) id = line.slice(3);
      else if (line.startsWith(":HTTP_STATUS/")) status = line.slice(13);
      else if (line.startsWith("data:") && line !== "data: [DONE]") {
        const said = JSON.parse(line.slice(5)), fault = faultOf(said);
        number += 1;
        if (fault) { fail(fault, status); row([id || number, since(), "", fault.code], true); }
        else show(id || number, said, since(), adds);
      }
    }
  }
}

function begin() {
  for (const name of ["reasoning", "answer", "raw", "failure"]) $(name).textContent = "";
  for (const name of ["input_tokens", "output_tokens", "total_tokens", "reasoning_tokens", "request_id"]) $(name).textContent = "–";
  $("packets").tBodies[0].replaceChildren();
  $("count").textContent = "0";
  $("failure").hidden = $("chain").hidden = true;
  $("result").hidden = false;
  $("send").disabled = true;
  $("cancel").disabled = false;
  $("status").textContent = "…";
}

async function send() {
  call = new AbortController();
  begin();
  const started = performance.now();
  const body = $("body").value, api = $("api").value;
  const headers = { "Content-Type": "application/json", "X-DashScope-SSE": $("stream").checked ? "enable" : "disable" };
  const key = $("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  let ended = "done";
  try {
    const answer = await fetch(`docs/try?api=${api}`, { method: "POST", headers, body, signal: call.signal, cache: "no-store", credentials: "omit" });
    $("status").textContent = `${answer.status} …`;
    await read(answer, started, api === "openai" || /"incremental_output"\s*:\s*true/.test(body));
    ended = `${answer.status}`;
  } catch (error) {
    ended = error.name === "AbortError" ? "cancelled" : "broken off";
    if (error.name !== "AbortError") fail({ code: "–", message: String(error) });
  }
  $("status").textContent = `${ended} · ${((performance.now() - started) / 1000).toFixed(2)} s`;
  $("send").disabled = false;
  $("cancel").disabled = true;
}

$("call").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("cancel").addEventListener("click", () => call?.abort());
