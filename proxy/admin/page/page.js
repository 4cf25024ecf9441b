// The language is the anchor's, else the one chosen, which the address keeps, else the reader's; nothing is stored.
const root = document.documentElement;
const anchored = () => /^#(en|zh)-/.exec(location.hash)?.[1];
const chosen = () => /^(en|zh)$/.exec(new URLSearchParams(location.search).get("lang") ?? "")?.[0];
function speak(language) {
  root.lang = language;
  if (anchored() === language) document.querySelector(location.hash)?.scrollIntoView();
  // What is shown has changed, also where nothing had to be scrolled.
  requestAnimationFrame(() => mark());
}
const listen = () => speak(anchored() ?? chosen() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"));
$("language").addEventListener("click", () => {
  const language = root.lang === "zh" ? "en" : "zh";
  // The section of the address as long as it is in sight, else the one that is read.
  const top = anchored() ? document.querySelector(location.hash)?.getBoundingClientRect().top : undefined;
  const section = top >= 0 && top < innerHeight ? location.hash : document.querySelector("aside [aria-current]")?.hash ?? location.hash;
  history.replaceState(null, "", `?lang=${language}${section.replace(/^#(en|zh)-/, `#${language}-`)}`);
  speak(language);
});
addEventListener("hashchange", listen);
listen();

// The contents are open where there is room for them, and mark the section that is read.
const wide = matchMedia("(min-width: 54rem)");
const unfold = () => { $("contents").open = wide.matches; };
wide.addEventListener("change", unfold);
unfold();
const headings = [...document.querySelectorAll("article :is(h2, h3)")];
function mark() {
  const shown = headings.filter((heading) => heading.offsetParent);
  const at = shown.findLast((heading) => heading.getBoundingClientRect().top < 120);
  for (const link of document.querySelectorAll("aside a")) {
    if (at && link.hash === `#${at.id}`) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }
}
let marking = 0;
addEventListener("scroll", () => { marking ||= requestAnimationFrame(() => { marking = 0; mark(); }); }, { passive: true });

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
  spell();
}
for (const id of ["api", "model", "message", "incremental", "thinking"]) $(id).addEventListener("input", compose);
// A header of DashScope's, a field of OpenAI's.
$("stream").addEventListener("input", () => { if (openai()) compose(); else spell(); });
$("body").addEventListener("input", spell);

// The call as code: what stands in the JSON, word for word; the key stays out of it.
const { served } = document.body.dataset;
const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
function python(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const parts = Array.isArray(value) ? value.map((one) => python(one, inner))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return parts.length ? `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}` : open + close;
}
const words = (said, indent) => Object.entries(said).map(([name, value]) => `${indent}${name}=${python(value, indent)},\n`).join("");
const asked = (begin, call, stream) => stream ? `for part in ${begin}(\n${call}):\n    print(part)\n` : `print(${begin}(\n${call}))\n`;
function spell() {
  const sse = $("stream").checked, text = $("body").value;
  let call = null;
  try { call = JSON.parse(text); } catch { /* shown as it stands */ }
  const [path, streams] = openai() ? ["/compatible-mode/v1/chat/completions", []]
    : ["/api/v1/services/aigc/text-generation/generation", sse ? ["-H 'X-DashScope-SSE: enable'"] : []];
  $("curl").textContent = [`curl -sS${sse ? "N" : ""} ${served}${path}`, `-H "Authorization: Bearer $DASHSCOPE_API_KEY"`,
    "-H 'Content-Type: application/json'", ...streams, `-d ${quoted(call ? JSON.stringify(call) : text)}`].join(" \\\n  ");
  $("sdk").textContent = call && typeof call === "object" ? (openai() ? openaiCode : dashscopeCode)(call, sse) : "";
}
function dashscopeCode({ model, input, parameters }, stream) {
  const call = words({ model, ...input, result_format: "message", stream, ...parameters }, "    ");
  return `import dashscope  # reads DASHSCOPE_API_KEY\n\ndashscope.base_http_api_url = ${JSON.stringify(`${served}/api/v1`)}\n${asked("dashscope.Generation.call", call, stream)}`;
}
// What OpenAI has no parameter for goes as it stands.
function openaiCode({ model, messages, stream = false, stream_options, ...others }) {
  const rest = Object.keys(others).length ? { extra_body: others } : {};
  const call = words({ model, messages, stream, ...(stream_options ? { stream_options } : {}), ...rest }, "    ");
  return `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(`${served}/compatible-mode/v1`)}, api_key=os.environ["DASHSCOPE_API_KEY"])\n${asked("client.chat.completions.create", call, stream)}`;
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = $(button.dataset.of);
    try { await navigator.clipboard.writeText(code.textContent); } catch {
      // Without a secure context there is no clipboard: it is selected, to be copied by hand.
      getSelection().selectAllChildren(code);
      return;
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  });
}
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
  $("packets").classList.toggle("plain", $("chain").hidden);
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
  $("failure").hidden = $("chain").hidden = $("next").hidden = true;
  $("packets").classList.add("plain");
  $("result").hidden = false;
  $("send").disabled = true;
  $("cancel").disabled = false;
  $("status").textContent = "…";
}

// What was said before, above the answer; the last of it is what is being answered.
function recall(messages) {
  $("turns").hidden = messages.length < 2;
  $("turns").replaceChildren(...messages.map(({ role, content }) => {
    const turn = document.createElement("p");
    turn.dataset.role = role;
    turn.textContent = typeof content === "string" ? content : JSON.stringify(content);
    return turn;
  }));
}

const saidIn = (call) => (call.input ?? call).messages ?? [];
function messages() {
  try { return saidIn(JSON.parse($("body").value)); } catch { return []; }
}

async function translate(body, api, headers) {
  const answer = await fetch(`docs/translate?api=${api}`, { method: "POST", headers, body, cache: "no-store", credentials: "omit" });
  const shown = await answer.json();
  $("upstream").hidden = !answer.ok;
  if (!answer.ok) return;
  $("asked").textContent = `POST ${shown.path}${shown.calls > 1 ? ` × ${shown.calls}` : ""} · ${shown.input_tokens} prompt tokens`;
  $("theirs").textContent = JSON.stringify(shown.body, null, 2);
  $("fields").tBodies[0].replaceChildren();
  for (const { field, action, upstream, why } of shown.fields) {
    const line = $("fields").tBodies[0].insertRow();
    for (const cell of [field || "–", action, upstream]) line.insertCell().textContent = cell;
    const cell = line.insertCell();
    for (const [lang, text] of [["en", why], ["zh", inChinese(why)]]) {
      const said = document.createElement("span");
      said.lang = lang;
      said.textContent = text;
      cell.append(said);
    }
  }
}

async function send() {
  call = new AbortController();
  begin();
  recall(messages());
  const started = performance.now();
  const body = $("body").value, api = $("api").value;
  const headers = { "Content-Type": "application/json", "X-DashScope-SSE": $("stream").checked ? "enable" : "disable" };
  translate(body, api, headers).catch(() => { $("upstream").hidden = true; });
  const key = $("key")?.value.trim();
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
  $("next").hidden = !($("failure").hidden && $("answer").textContent && messages().length);
}

// A second turn: all that was said goes with it, as every call of the protocol carries its own past.
function goOn() {
  const document = JSON.parse($("body").value);
  saidIn(document).push({ role: "assistant", content: $("answer").textContent }, { role: "user", content: $("reply").value });
  $("body").value = JSON.stringify(document, null, 2);
  $("reply").value = "";
  spell();
  send();
}
$("next").addEventListener("submit", (event) => { event.preventDefault(); goOn(); });
$("call").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("cancel").addEventListener("click", () => call?.abort());
