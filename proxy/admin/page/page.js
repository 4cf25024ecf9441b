"use strict";

const $ = (id) => document.getElementById(id);

// The language of the reader, until told otherwise; nothing is stored.
const root = document.documentElement;
const speak = (language) => { root.lang = language; };
speak(navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
$("language").addEventListener("click", () => speak(root.lang === "zh" ? "en" : "zh"));

// The form writes the JSON; whoever edits the JSON has the last word, until the form is touched again.
function compose() {
  const parameters = {};
  if ($("incremental").checked) parameters.incremental_output = true;
  if ($("thinking").checked) parameters.enable_thinking = true;
  const messages = [{ role: "user", content: $("message").value }];
  $("body").value = JSON.stringify({ model: $("model").value, input: { messages }, parameters }, null, 2);
}
for (const id of ["model", "message", "incremental", "thinking"]) $(id).addEventListener("input", compose);
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

// Incremental packets add to the text, cumulative ones replace it.
function show(id, packet, since, adds) {
  const { message, finish_reason } = packet.output.choices[0];
  for (const [name, text] of [["reasoning", message.reasoning_content], ["answer", message.content]]) {
    const place = $(name);
    if (adds) place.append(text ?? ""); else place.textContent = text ?? "";
  }
  for (const { function: { name, arguments: given } } of message.tool_calls ?? []) $("answer").append(`${name ?? ""} ${given}`);
  $("chain").hidden = !$("reasoning").textContent;
  const { usage } = packet;
  for (const name of ["input_tokens", "output_tokens", "total_tokens"]) $(name).textContent = usage[name];
  $("reasoning_tokens").textContent = usage.output_tokens_details?.reasoning_tokens ?? "–";
  $("request_id").textContent = packet.request_id;
  row([id, since, message.reasoning_content, message.content, finish_reason, usage.input_tokens, usage.output_tokens, usage.total_tokens]);
}

async function read(answer, started, adds) {
  const since = () => Math.round(performance.now() - started);
  if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    const text = await answer.text();
    $("raw").append(text);
    const said = JSON.parse(text);
    if (said.code) fail(said, answer.status); else show("–", said, since(), false);
    return;
  }
  let rest = "", id = "", status = "";
  const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await lines.read(); !piece.done; piece = await lines.read()) {
    $("raw").append(piece.value);
    const whole = (rest + piece.value).split("\n");
    rest = whole.pop();
    for (const line of whole) {
      if (line.startsWith("id:")) id = line.slice(3);
      else if (line.startsWith(":HTTP_STATUS/")) status = line.slice(13);
      else if (line.startsWith("data:")) {
        const packet = JSON.parse(line.slice(5));
        if (packet.code) { fail(packet, status); row([id, since(), "", packet.code], true); }
        else show(id, packet, since(), adds);
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
  const body = $("body").value;
  const headers = { "Content-Type": "application/json", "X-DashScope-SSE": $("stream").checked ? "enable" : "disable" };
  const key = $("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  let ended = "done";
  try {
    const answer = await fetch("docs/try", { method: "POST", headers, body, signal: call.signal, cache: "no-store", credentials: "omit" });
    $("status").textContent = `${answer.status} …`;
    await read(answer, started, /"incremental_output"\s*:\s*true/.test(body));
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
