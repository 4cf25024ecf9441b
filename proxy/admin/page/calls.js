const served = document.body.dataset.served;

// What is said comes from callers and upstreams: it is only ever put in as text.
function make(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (name) made.className = name;
  return made;
}
const both = (en, zh) => [["en", en], ["zh", zh]].map(([lang, text]) => { const said = make("span", text); said.lang = lang; return said; });
const reason = (text) => both(text, inChinese(text));
function inBoth(tag, en, zh) { const made = make(tag); made.append(...both(en, zh)); return made; }
const ms = (value) => value === null || value === undefined ? "–" : value >= 10000 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value)} ms`;

const root = document.documentElement;
const speak = (language) => { root.lang = language; };
speak(navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
$("language").addEventListener("click", () => speak(root.lang === "zh" ? "en" : "zh"));

// The list

const calls = new Map();
const rows = new Map();
let chosen = null;

const failed = (call) => !["ok", "open", "stray"].includes(call.outcome);
const kind = (call) => failed(call) ? "failed" : call.outcome;

function matches(call) {
  const which = $("which").value, words = $("search").value.trim().toLowerCase();
  if (which !== "all" && kind(call) !== which) return false;
  const text = [call.number, call.request_id, call.model, call.method, call.path, call.outcome, call.status, call.code, call.cause, call.api].join(" ").toLowerCase();
  return words.split(/\s+/).every((word) => text.includes(word));
}

// From arrival to end: the body, our own work, the wait for upstream, the answer.
function waterfall(call) {
  const place = make("div", null, "fall");
  const now = call.ended_ms ?? Math.max(call.first_ms ?? 0, call.answered_ms ?? 0, call.asked_ms ?? 0, Date.now() - call.at_s * 1000);
  const steps = [["read", call.read_ms], ["asked", call.asked_ms], ["wait", call.first_ms ?? now], ["said", now]];
  let before = 0;
  for (const [name, at] of steps) {
    if (at === null || at === undefined || now <= 0) continue;
    const part = make("i", null, name);
    part.style.width = `${100 * Math.max(0, at - before) / now}%`;
    place.append(part);
    before = Math.max(before, at);
  }
  return place;
}

function why(before, cause) {
  const place = make("span", null, "why");
  place.append([...before, cause && ""].filter((text) => text !== null && text !== undefined).join(": "), ...(cause ? reason(cause) : []));
  return place;
}

function badge(call) {
  const name = call.outcome === "open" ? "open" : failed(call) || call.outcome === "stray" ? "bad" : "ok";
  return make("span", call.outcome === "open" ? "…" : call.status, `badge ${name}`);
}

function draw(call) {
  let row = rows.get(call.number);
  if (!row) {
    row = make("li");
    row.setAttribute("role", "option");
    row.id = `call-${call.number}`;
    row.addEventListener("click", () => choose(call.number));
    rows.set(call.number, row);
    $("list").prepend(row);
  }
  const quiet = make("span", null, "quiet");
  const tokens = !call.input_tokens && !call.output_tokens ? "" : `${call.input_tokens} + ${call.output_tokens}`;
  const said = [new Date(call.at_s * 1000).toLocaleTimeString(), call.stream ? "SSE" : "JSON", call.api, tokens && `${tokens} tokens`,
    call.first_ms !== null && `▸ ${ms(call.first_ms)}`, call.ended_ms ? ms(call.ended_ms) : ""];
  for (const text of call.outcome === "stray" ? [said[0], call.method] : said) if (text) quiet.append(make("span", text));
  if (call.code || call.cause) quiet.append(why([call.code], call.cause));
  const name = call.outcome === "stray" ? call.path : call.model || call.path;
  row.replaceChildren(badge(call), make("span", name, "model"), make("span", call.number, "mono"), quiet);
  if (call.outcome !== "stray") row.append(waterfall(call));
  row.hidden = !matches(call);
  row.setAttribute("aria-selected", call.number === chosen);
}

function sift() {
  for (const [number, row] of rows) row.hidden = !matches(calls.get(number));
}
$("search").addEventListener("input", sift);
$("which").addEventListener("input", sift);

function take(news) {
  for (const number of news.gone) {
    calls.delete(number);
    rows.get(number)?.remove();
    rows.delete(number);
  }
  for (const call of news.calls) { calls.set(call.number, call); draw(call); }
  $("empty").hidden = calls.size > 0;
  const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
  $("bounds").replaceChildren(...both(
    `${calls.size} of at most ${news.most_calls} calls, ${mib(news.held_bytes)} of ${mib(news.most_bytes)} MiB, in memory only`,
    `${calls.size} / ${news.most_calls} 个调用，${mib(news.held_bytes)} / ${mib(news.most_bytes)} MiB，仅在内存中`));
  if (chosen !== null && news.calls.some((call) => call.number === chosen)) refresh();
}

function watch() {
  const events = new EventSource("calls/events");
  events.onopen = () => { calls.clear(); rows.clear(); $("list").replaceChildren(); };
  events.onmessage = (event) => take(JSON.parse(event.data));
}
watch();

// One call

let wanted = false, loading = false, shown = null, most = 200;

async function refresh() {
  // Who is gone from the list is shown as it was.
  if (!calls.has(chosen)) return;
  if (loading) { wanted = true; return; }
  loading = true;
  try {
    const number = chosen;
    const answer = await fetch(`calls/${number}`, { cache: "no-store", credentials: "omit" });
    if (answer.ok && number === chosen) show(await answer.json());
  } finally {
    // An open call goes on: it is looked at again, but not at every packet.
    setTimeout(() => { loading = false; if (wanted) { wanted = false; refresh(); } }, 700);
  }
}

function choose(number) {
  chosen = number;
  most = 200;
  for (const [other, row] of rows) row.setAttribute("aria-selected", other === number);
  $("list").setAttribute("aria-activedescendant", `call-${number}`);
  $("one").hidden = number === null;
  shown = null;
  if (number !== null) { loading = false; refresh(); rows.get(number)?.scrollIntoView({ block: "nearest" }); }
}
$("back").addEventListener("click", () => { choose(null); $("list").focus(); });

const wireOf = (said) => said.text !== undefined ? new TextEncoder().encode(said.text) : Uint8Array.from(atob(said.base64), (char) => char.charCodeAt(0));
const bytesOf = (said) => said.text !== undefined ? said.text : new TextDecoder().decode(wireOf(said));
// A read may end inside a character.
function textOf(reads) {
  const decoder = new TextDecoder();
  return reads.map((read) => decoder.decode(wireOf(read), { stream: true })).join("") + decoder.decode();
}
function parsed(text) { try { return JSON.parse(text); } catch { return null; } }
function pretty(text) { const document = parsed(text); return document === null ? text : JSON.stringify(document, null, 2); }

// The events of some bytes: what has no data has a comment, or an end that is still to come.
function events(wire) {
  const whole = parsed(wire);
  if (whole && typeof whole === "object") return [{ data: wire, json: whole, raw: wire }];
  return wire.split(/\r?\n\r?\n/).filter((block) => block.trim()).map((block) => {
    const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
    return { data, json: parsed(data), raw: block };
  });
}

// The events that end in each read of an answer; what a read has of one that ends in a later read is `part`.
function eventsOf(reads) {
  const decoder = new TextDecoder();
  let rest = "";
  return reads.map((read, at) => {
    const wire = rest + decoder.decode(wireOf(read), { stream: true });
    const whole = at === reads.length - 1 || wire.trimStart().startsWith("{") && parsed(wire) ? wire.length
      : wire.trimStart().startsWith("{") ? 0 : Math.max(...["\n\n", "\r\n\r\n"].map((end) => { const from = wire.lastIndexOf(end); return from < 0 ? 0 : from + end.length; }));
    rest = wire.slice(whole);
    return { theirs: events(wire.slice(0, whole)), part: rest };
  });
}

// What one event of either side says: of upstream and of the OpenAI surface deltas, of DashScope messages.
// parts: each text by its place, `choice/field`, or `choice/call/field` of a tool call.
function told(json) {
  const found = { text: "", chain: "", tools: "", end: "", usage: json?.usage ?? null, error: null, parts: [] };
  if (!json || typeof json !== "object") return found;
  if (json.error || json.code) found.error = JSON.stringify(json.error ?? json);
  (json.output?.choices ?? json.choices ?? []).forEach((choice, at) => {
    const part = choice.delta ?? choice.message ?? {}, place = choice.index ?? at;
    const text = Array.isArray(part.content) ? part.content.map((one) => one.text ?? "").join("") : part.content ?? "";
    const chain = part.reasoning_content ?? part.reasoning ?? "";
    found.text += text;
    found.chain += chain;
    if (text) found.parts.push([`${place}/text`, text]);
    if (chain) found.parts.push([`${place}/chain`, chain]);
    (part.tool_calls ?? []).forEach((call, number) => {
      const name = call.function?.name ?? "", given = call.function?.arguments ?? "";
      const said = typeof given === "string" ? given : JSON.stringify(given);
      found.tools += ` ⚙ ${name}${said}`;
      if (name) found.parts.push([`${place}/${call.index ?? number}/name`, name]);
      if (said) found.parts.push([`${place}/${call.index ?? number}/arguments`, said]);
    });
    if (choice.finish_reason && choice.finish_reason !== "null") found.end += choice.finish_reason;
  });
  return found;
}

const pair = (usage) => usage ? `${usage.input_tokens ?? usage.prompt_tokens} + ${usage.output_tokens ?? usage.completion_tokens}` : "";
const figures = (usage) => usage ? `${pair(usage)} = ${usage.total_tokens}` : "";

function side(listed) {
  const place = make("div");
  for (const event of listed) {
    const one = told(event.json), line = make("div", null, "event"), says = make("div");
    if (one.chain) says.append(make("div", one.chain, "said chain"));
    if (one.text) says.append(make("div", one.text, "said"));
    if (one.tools) says.append(make("div", one.tools, "said"));
    if (one.error) says.append(make("div", one.error, "said why"));
    if (!event.json) says.append(make("div", event.data || event.raw, "use"));
    line.append(says, make("span", [one.end && `■ ${one.end}`, figures(one.usage)].filter(Boolean).join("  "), "use"));
    place.append(line);
  }
  if (listed.length) {
    const raw = make("details"), times = listed.length > 1 ? `${listed.length} × ` : "";
    raw.append(inBoth("summary", `${times}raw`, `${times}原文`), make("pre", listed.map((event) => event.raw).join("\n\n")));
    place.append(raw);
  }
  return place;
}

const MARKS = {
  held: ["held", "已收下"], dropped: ["dropped", "已丢弃"], changed: ["changed", "已改写"], counted: ["counted", "已计数"],
};
const WHY = {
  call: ["a tool call leaves whole, unless the call says tool_stream", "工具调用完整后才送出，除非请求带 tool_stream"],
  end: ["the end waits for usage", "结尾等待用量"],
  text: ["its text leaves with what follows", "其文本随后续内容送出"],
  figure: ["its usage is in the next packet", "其用量写入下一个数据包"],
  part: ["an event that ends in a later read", "该事件在之后的读取中结束"],
  dropped: ["says nothing to a caller", "对调用方没有内容"],
  changed: ["what left is not what upstream said so far", "送出的内容与上游至此所说不同"],
  counted: ["usage is our own count", "用量由我们统计"],
};

// What became of each read. All that upstream has said waits by its place; a packet takes what it says from the front
// of what waits: then nothing was changed, however late it leaves, and in whatever pieces.
function mark(line, call) {
  const asked = parsed(bytesOf(call.caller.body)), waits = new Map(), shown = new Map();
  const repeats = call.api !== "openai" && String(asked?.parameters?.incremental_output) !== "true";
  // Several upstream calls answer a choice each, or one after the other the same.
  const each = Number(asked?.parameters?.n ?? asked?.n ?? 1) > 1 && call.upstream.length > 1;
  let last = null;
  for (const row of line) {
    if (!row.theirs) continue;
    const from = row.key?.split("/")[0], theirs = row.theirs.map((event) => told(event.json));
    if (from !== undefined && from !== last && !each) { waits.clear(); last = from; }
    for (const [place, text] of theirs.flatMap((one) => one.parts)) {
      const at = each ? place.replace(/^\d+/, from) : place, before = waits.get(at) ?? "";
      // A name that is there is said again; a piece of one is put behind it.
      waits.set(at, place.endsWith("/name") && before === text ? text : before + text);
    }
    const ours = row.packets.flatMap((packet) => packet.ours).map((event) => told(event.json));
    let changed = false;
    for (const [place, text] of ours.flatMap((one) => one.parts)) {
      const before = repeats ? shown.get(place) ?? "" : "", fresh = text.startsWith(before) ? text.slice(before.length) : text;
      const theirs = waits.get(place) ?? "";
      if (repeats) shown.set(place, text);
      changed ||= !theirs.startsWith(fresh);
      waits.set(place, theirs.startsWith(fresh) ? theirs.slice(fresh.length) : "");
    }
    row.marks = [];
    if (theirs.length && !row.packets.length) {
      const parts = theirs.flatMap((one) => one.parts.map(([place]) => place.split("/").length > 2 ? "call" : "text"));
      const why = parts[0] ?? (theirs.some((one) => one.end) ? "end" : theirs.some((one) => one.usage) ? "figure" : null);
      row.marks.push(why ? ["held", why] : ["dropped", "dropped"]);
    }
    if (!theirs.length && row.part && !row.packets.length) row.marks.push(["held", "part"]);
    if (changed) row.marks.push(["changed", "changed"]);
    const said = new Set(theirs.map((one) => pair(one.usage)));
    if (ours.some((one) => one.usage && !said.has(pair(one.usage)))) row.marks.push(["counted", "counted"]);
  }
}

function timeline(call) {
  const line = [], well = call.journal.some((one) => one.outcome === "ok");
  call.upstream.forEach((upstream, number) => {
    line.push({ at: upstream.asked_ms, left: make("div", `→ POST ${upstream.target}${upstream.path}`, "use") });
    if (upstream.answered_ms !== null) line.push({ at: upstream.answered_ms, left: make("div", `← ${upstream.status} ${upstream.content_type}`, "use") });
    eventsOf(upstream.reads).forEach((row, at) => line.push({ at: upstream.reads[at].at_ms, key: `${number}/${at}`, packets: [], ...row }));
    // Of an answer that was whole, what came behind it is not waited for.
    if (upstream.failure) {
      const left = make("div", null, well ? "use" : "said why");
      left.append(...reason(upstream.failure));
      line.push({ at: upstream.ended_ms ?? 0, bad: !well, left });
    }
  });
  const byRead = new Map(line.filter((row) => row.key).map((row) => [row.key, row]));
  for (const packet of call.packets) {
    const row = byRead.get(packet.of.join("/"));
    const ours = events(bytesOf(packet));
    if (row) row.packets.push({ at: packet.at_ms, ours }); else line.push({ at: packet.at_ms, theirs: [], packets: [{ at: packet.at_ms, ours }] });
  }
  if (call.refusal) line.push({ at: call.ended_ms ?? 0, theirs: [], packets: [{ at: call.ended_ms ?? 0, ours: events(bytesOf(call.refusal)) }] });
  line.sort((one, other) => one.at - other.at);
  mark(line, call);
  return line;
}

function drawLine(call) {
  const line = timeline(call), place = document.createDocumentFragment(), before = new Map();
  for (const row of line.slice(0, most)) {
    const shows = make("div", null, row.bad ? "row bad" : "row");
    shows.append(make("span", row.at.toFixed(1), "at"));
    const left = make("div"), right = make("div");
    if (row.left) left.append(row.left);
    if (row.theirs) {
      for (const [name, why] of row.marks) {
        const chip = make("span", null, `mark ${name}`), says = make("span", null, "use");
        chip.append(...both(...MARKS[name]));
        says.append(...both(...WHY[why]));
        const place = make("div");
        place.append(chip, ...(before.get(name) === why ? [] : [says]));
        before.set(name, why);
        (row.key && name !== "counted" ? left : right).append(place);
      }
      left.append(side(row.theirs));
      for (const packet of row.packets) {
        if (packet.at - row.at >= 1) right.append(make("div", `+${(packet.at - row.at).toFixed(1)} ms`, "use"));
        right.append(side(packet.ours));
      }
    }
    shows.append(left, right);
    place.append(shows);
  }
  $("line").replaceChildren(place);
  $("more").hidden = line.length <= most;
  $("more").replaceChildren(...both(`all ${line.length} rows`, `全部 ${line.length} 行`));
  $("legend").replaceChildren(...both(
    "Each read from upstream beside the packets it became. A mark says what differs; why is beside the first of its kind.",
    "上游每次到达的内容与由它产生的数据包并列。标记说明差异，原因写在同类的第一个旁。"));
}
$("more").addEventListener("click", () => { most = Infinity; if (shown) drawLine(shown); });

const ACTIONS = { kept: "保留", renamed: "改名", clamped: "截取", dropped: "丢弃", emulated: "模拟", added: "添加" };

function table(account) {
  if (!account?.length) return [];
  const made = make("table");
  for (const line of account) {
    const row = made.insertRow();
    const action = make("span", null, `mark ${line.action}`);
    action.append(...both(line.action, ACTIONS[line.action] ?? line.action));
    row.insertCell().append(action);
    row.insertCell().append(make("code", line.field || "–"));
    row.insertCell().append(make("code", line.upstream));
    row.insertCell().append(...(line.why ? reason(line.why) : []));
  }
  return [inBoth("h3", "What became of each field", "各字段的去向"), made];
}

function body(heading, headers, text) {
  const place = make("div");
  place.append(make("pre", heading));
  if (Object.keys(headers).length) {
    const folded = make("details");
    folded.append(inBoth("summary", "headers", "请求头"), make("pre", Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join("\n")));
    place.append(folded);
  }
  if (text) place.append(make("pre", pretty(text)));
  return place;
}

function show(call) {
  shown = call;
  const { caller } = call, closing = call.journal.find((line) => line.event === "close");
  const line = calls.get(call.number);
  $("title").replaceChildren(...(line ? [badge(line), document.createTextNode(` ${line.model || ""} `)] : []), make("code", `${caller.method} ${caller.path}`));
  $("cause").replaceChildren(why([closing?.code], call.cause || call.hint));
  const first = closing ? closing.t.first_packet : call.packets[0]?.at_ms, asked = call.upstream[0];
  const facts = [
    [["outcome", "结果"], closing?.outcome ?? (call.status ? "stray" : "open")],
    [["request id", "请求 ID"], call.request_id],
    [["target", "目标"], call.upstream.map((one) => [one.pool, one.target].filter(Boolean).join(" ")).filter(Boolean).join(", ") || "–"],
    [["body read", "读取请求"], ms(caller.read_ms)], [["upstream asked", "请求上游"], ms(asked?.asked_ms)],
    [["upstream answered", "上游应答"], ms(asked?.answered_ms)], [["first packet", "首包"], ms(first)], [["ended", "结束"], ms(call.ended_ms)],
    [["packets", "数据包"], closing?.packets ?? call.packets.length],
    [["billed", "计费"], closing ? figures(closing.usage) : "–"], [["generated", "生成"], closing ? `${figures(closing.generated)} (${closing.basis})` : "–"],
  ];
  if (call.lost_bytes) facts.push([["not kept", "未保留"], `${call.lost_bytes} B`]);
  $("facts").replaceChildren(...facts.map(([names, value]) => {
    const pair = make("div"), term = make("dt");
    term.append(...both(...names));
    pair.append(term, make("dd", value));
    return pair;
  }));
  for (const [id, path, name] of [["file", "", "json"], ["shared", "?redact", "redacted.json"], ["har", ".har", "har"]]) {
    $(id).href = `calls/${call.number}${path}`;
    $(id).download = `call-${call.number}.${name}`;
  }
  $("came").replaceChildren(body(`${caller.method} ${caller.path}`, caller.headers, bytesOf(caller.body)));
  $("asked").replaceChildren(...call.upstream.map((one) => body(`POST ${one.target}${one.path}`, one.headers, bytesOf(one.body))));
  if (!call.upstream.length) $("asked").append(make("p", "–"));
  $("account").replaceChildren(...table(call.account));
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = button.dataset.copy in call.not_offered;
  $("lacks").replaceChildren(...notOffered(call.not_offered));
  drawLine(call);
  $("books").replaceChildren(...call.journal.map((one) => make("pre", JSON.stringify(one, null, 2))));
}

// Take away

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const KEPT = /^(content-type|accept|x-dashscope-.*)$/i;

// What is not offered: each reason once, with the copies it is the reason of, named as their buttons are.
function notOffered(reasons) {
  return [...new Set(Object.values(reasons))].map((why) => {
    const buttons = Object.keys(reasons).filter((copy) => reasons[copy] === why).map((copy) => document.querySelector(`[data-copy="${copy}"]`));
    const names = (lang) => buttons.map((button) => (button.querySelector(`[lang="${lang}"]`) ?? button).textContent);
    return inBoth("span", `No ${names("en").join(", ")}: ${why}. `, `不提供 ${names("zh").join("、")}：${inChinese(why)}。`);
  });
}

const copies = {
  curl(call) {
    const { caller } = call;
    const headers = Object.entries(caller.headers).filter(([name]) => KEPT.test(name));
    const lines = [`curl -N ${quoted(served + caller.path)}`, `-H "Authorization: Bearer $DASHSCOPE_API_KEY"`];
    for (const [name, value] of headers) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
    const body = bytesOf(caller.body);
    if (caller.method !== (body ? "POST" : "GET")) lines.push(`-X ${caller.method}`);
    if (body) lines.push(`--data-binary ${quoted(body)}`);
    return lines.join(" \\\n  ");
  },
  upstream(call) {
    return call.upstream.map((one) => [`curl -N ${quoted(one.target + one.path)}`, `-H "Authorization: Bearer $DASHSEEK_UPSTREAM_API_KEY"`,
      `-H 'Content-Type: application/json'`, `--data-binary ${quoted(bytesOf(one.body))}`].join(" \\\n  ")).join("\n\n");
  },
  python(call) {
    const text = JSON.stringify(bytesOf(call.caller.body));
    if (call.api === "openai") return `import json\nimport os\n\nimport openai\n\ncall = json.loads(${text})\nclient = openai.OpenAI(base_url=${JSON.stringify(served + call.caller.path.replace(/\/chat\/completions$/, ""))}, api_key=os.environ["DASHSCOPE_API_KEY"])\nanswer = client.post("/chat/completions", cast_to=object, body=call${call.stream ? ", stream=True, stream_cls=openai.Stream[object]" : ""})\n${call.stream ? "for chunk in answer:\n    print(chunk)" : "print(answer)"}\n`;
    const sees = call.caller.path.includes("/multimodal-generation/");
    const made = sees ? `MultiModalConversation.call(\n    call["model"], call["input"]["messages"], **call.get("parameters", {}),`
      : `Generation.call(\n    call["model"], **call["input"], **{"result_format": "message", **call.get("parameters", {})},`;
    return `import json\nimport os\n\nimport dashscope\n\ndashscope.base_http_api_url = ${JSON.stringify(`${served}/api/v1`)}\ncall = json.loads(${text})\nanswer = dashscope.${made}\n    api_key=os.environ["DASHSCOPE_API_KEY"]${call.stream ? ", stream=True" : ""},\n)\n${call.stream ? "for packet in answer:\n    print(packet)" : "print(answer)"}\n`;
  },
  golden(call) {
    const kind = call.api === "openai" ? "compatible" : call.caller.path.includes("/multimodal-generation/") ? "multimodal" : "stream";
    const room = `tests/golden/${kind}/RULE-what-it-shows`;
    const wire = call.upstream.map((one) => textOf(one.reads)).join("");
    const file = (name, text) => `cat > ${room}/${name} <<'END_OF_FILE'\n${text.replace(/\n$/, "")}\nEND_OF_FILE`;
    return [`mkdir -p ${room}`, file("call.json", pretty(bytesOf(call.caller.body))), file("upstream.sse", wire)].join("\n");
  },
};

async function copy(what) {
  if (!shown || what in shown.not_offered) return;
  const text = copies[what](shown);
  $("copied").textContent = text;
  $("done").textContent = "";
  if (!$("text").open) $("text").showModal();
  try { await navigator.clipboard.writeText(text); $("done").textContent = root.lang === "zh" ? "已复制" : "copied"; } catch { $("done").textContent = ""; }
}
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
$("close").addEventListener("click", () => $("text").close());

// By the keyboard: j and k or arrows go, Enter opens, Escape closes, / searches, c copies curl.
function step(by) {
  const visible = [...$("list").children].filter((row) => !row.hidden).map((row) => Number(row.id.slice(5)));
  const at = visible.indexOf(chosen);
  const next = visible[Math.min(visible.length - 1, Math.max(0, at + by))];
  if (next !== undefined) choose(next);
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("text").open) return;
  const typing = ["INPUT", "SELECT"].includes(document.activeElement?.tagName);
  if (event.key === "Escape") { if (typing) document.activeElement.blur(); else choose(null); return; }
  if (typing) return;
  const act = { j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1), c: () => copy("curl"), "/": () => $("search").focus() }[event.key];
  if (act) { event.preventDefault(); act(); }
});
