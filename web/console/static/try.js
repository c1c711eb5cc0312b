// Asks the sources of the form as any client would: POST /v1/requests, then the event stream of the request.

import { enhance, fetched, renew, say } from "./frame.js";
import { bytesText, element, msText, parsed, recordsTable } from "./show.js";

const ROWS = 200; // of a table, before somebody asks for more
const TICK_MS = 100;
const CODES_MS = 350; // after the last key

const form = document.getElementById("ask");
const run = document.getElementById("run");
const cancel = document.getElementById("cancel");
const share = document.getElementById("share");
const state = document.getElementById("state");
const problem = document.getElementById("problem");
const results = document.getElementById("results");

/** The address of this form, as it is filled: what it asks and no more. */
function address() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value !== "" && (name === "source" || name.includes(".") || name === "deadline" || name === "max_age")) query.append(name, value);
  }
  return `/try?${query}`;
}

/** The body of the post. Numbers are written as they were typed: 18 digits are more than JavaScript's numbers have. */
function body() {
  const asks = [...form.querySelectorAll("[data-ask]")].map((box) => {
    const params = [...box.querySelectorAll("[data-type]")]
      .filter((field) => field.value !== "")
      .map((field) => `${JSON.stringify(field.name.slice(field.name.indexOf(".") + 1))}: ${json(field.dataset.type, field.value)}`);
    return `{"source": ${JSON.stringify(box.querySelector("[name=source]").value)}, "params": {${params.join(", ")}}}`;
  });
  const own = ["deadline", "max_age"]
    .filter((name) => form.elements[name].value.trim() !== "")
    .map((name) => `, "${name}": ${json("float", form.elements[name].value.trim())}`);
  return `{"sources": [${asks.join(", ")}]${own.join("")}}`;
}

// A text that is none of its type is sent as a text; the gateway says what it expected.
function json(type, text) {
  const trimmed = text.trim();
  if (type === "int" && /^-?(0|[1-9]\d{0,17})$/.test(trimmed)) return trimmed;
  if (type === "float" && /^-?(0|[1-9]\d{0,14})(\.\d{1,15})?$/.test(trimmed)) return trimmed;
  if (type === "bool" && (trimmed === "true" || trimmed === "false")) return trimmed;
  return JSON.stringify(text);
}

// Faults

function clearFaults() {
  problem.replaceChildren();
  for (const error of form.querySelectorAll(".error")) error.textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/** Shows a problem document: each of its errors beside the field that its pointer leads to, the others above the buttons. */
function showProblem(told) {
  const others = [];
  let first = null;
  for (const { pointer, detail } of told.errors ?? []) {
    const found = /^\/sources\/(\d+)\/params\/([^/]+)$/.exec(pointer);
    const name = found
      ? `${[...form.querySelectorAll("[data-ask]")][Number(found[1])]?.dataset.ask}.${found[2].replaceAll("~1", "/").replaceAll("~0", "~")}`
      : pointer.slice(1);
    const field = document.getElementById(name);
    const error = document.getElementById(`${name}-error`);
    if (!field || !error) { others.push(detail); continue; }
    error.textContent = detail;
    field.setAttribute("aria-invalid", "true");
    field.closest("details")?.setAttribute("open", "");
    first ??= field;
  }
  if (!first || others.length) {
    const lines = others.length ? others : [told.detail ?? told.title ?? "It was refused."];
    problem.replaceChildren(...lines.map((line) => element("p", { class: "notice bad" }, line)));
  }
  first?.focus();
}

// A run

let running = null; // {id, source (of events), timer, boxes}

async function start() {
  stop();
  clearFaults();
  run.disabled = true;
  const asked = [...form.querySelectorAll("[data-ask]")].map(params);
  let answer;
  try {
    answer = await fetch("/v1/requests", {
      method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: body(),
    });
  } catch {
    showProblem({ detail: "The gateway does not answer." });
    return;
  } finally {
    run.disabled = false;
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 401) { location.assign(`/signin?next=${encodeURIComponent(address())}`); return; }
  if (!answer.ok) { showProblem(told); return; }
  history.replaceState(null, "", address());
  const began = performance.now();
  const boxes = new Map(told.tasks.map((task, at) => [task.id, waiting(task, at + 1, asked[at])]));
  results.replaceChildren(...boxes.values());
  running = { id: told.id, boxes, done: 0, total: told.total, events: null, timer: 0 };
  running.timer = setInterval(() => { state.textContent = `${running.done} of ${running.total} · ${msText(performance.now() - began)}`; }, TICK_MS);
  cancel.hidden = false;
  if (results.getBoundingClientRect().top > window.innerHeight) results.parentElement.scrollIntoView();
  say("Asked. Results come in one by one.");
  listen(running, began);
}

function listen(mine, began) {
  const events = new EventSource(`/v1/requests/${mine.id}/events`);
  mine.events = events;
  events.addEventListener("result", (event) => take(mine, parsed(event.data)));
  events.addEventListener("done", (event) => {
    if (mine !== running) return;
    const request = JSON.parse(event.data);
    stop();
    const told = `${request.status} · ${request.completed} of ${request.total} · ${msText(performance.now() - began)}`;
    state.replaceChildren(told, " · ", element("a", { href: `/requests/${mine.id}` }, "hop by hop"));
    say(`Done: ${told}.`);
  });
  // A browser comes back by itself with its last id; where it gives up, the stream has been refused.
  events.addEventListener("error", () => {
    if (mine === running && events.readyState === EventSource.CLOSED) {
      stop();
      showProblem({ detail: "The stream of results ended. The request goes on; its page shows the rest." });
      state.replaceChildren(element("a", { href: `/requests/${mine.id}` }, "the request"));
    }
  });
}

function stop() {
  if (!running) return;
  clearInterval(running.timer);
  running.events?.close();
  running = null;
  cancel.hidden = true;
}

/** The params of one source as they were asked, in a line. */
function params(box) {
  return [...box.querySelectorAll("[data-type]")]
    .filter((field) => field.value !== "")
    .map((field) => `${field.name.slice(field.name.indexOf(".") + 1)}=${field.value}`)
    .join(" ");
}

function waiting(task, number, asked) {
  return element(
    "article", { class: "card result", "aria-busy": "true", "aria-label": `Result ${number}: ${task.source}`, "data-number": number, "data-asked": asked ?? "" },
    element("div", { class: "row" }, element("h3", {}, task.source), element("span", { class: "badge busy" }, "running"),
      element("span", { class: "muted small" }, task.region), asked ? element("code", { class: "muted end asked" }, asked) : null),
  );
}

function take(mine, result) {
  const box = mine.boxes.get(result.task);
  if (!box || mine !== running || box.getAttribute("aria-busy") !== "true") return;
  mine.done += 1;
  box.removeAttribute("aria-busy");
  box.replaceChildren(...shown(mine, result, box.dataset));
  enhance(box);
  say(result.error ? `${result.source} failed: ${result.error.message}` : `${result.source}: ${result.count} records`);
}

const TONES = { succeeded: "good", failed: "bad", cancelled: "none", expired: "fair" };

function* shown({ id: request, total }, result, { number, asked }) {
  const label = total > 1 ? `${result.source}, result ${number}` : result.source; // no two tables have one name
  const { timing, bytes, error } = result;
  yield element("div", { class: "row" },
    element("h3", {}, result.source),
    element("span", { class: `badge ${TONES[result.status] ?? "none"}` }, result.status),
    result.stale ? element("span", { class: "badge fair" }, "stale") : null,
    result.cached ? element("span", { class: "badge none" }, "cached") : null,
    result.partial ? element("span", { class: "badge fair" }, "partial") : null,
    element("span", { class: "muted small" }, result.region),
    asked ? element("code", { class: "muted end asked" }, asked) : null,
  );
  const figures = [
    ["records", String(result.count)],
    ["time", msText(timing.total_ms)],
    ["fetched", bytes.raw === 0 && bytes.spared ? "unchanged" : bytesText(bytes.raw)],
    ["sent home", bytesText(bytes.wire)],
    ["attempts", String(result.attempts)],
  ];
  if (result.cached) figures.push(["age", `${result.age} s`]);
  yield element("dl", { class: "figures" },
    ...figures.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  if (timing.total_ms > 0) yield timings(timing);
  if (error) {
    yield element("div", { class: "notice bad" },
      element("p", {}, element("strong", {}, `${error.type} (${error.origin}): `), element("bdi", {}, error.message)),
      error.retry_after ? element("p", {}, `It may be asked again in ${error.retry_after} s.`) : null);
  }
  if (result.warnings.length) {
    yield element("details", { class: "small" },
      element("summary", {}, result.warnings.length === 1 ? "1 warning" : `${result.warnings.length} warnings`),
      element("ul", {}, ...result.warnings.map((warning) => element("li", {}, element("bdi", {}, warning)))));
  }
  if (result.records.length) {
    const table = element("div", {}, recordsTable(result.records, ROWS, label));
    yield table;
    if (result.records.length > ROWS) {
      const more = element("button", { type: "button", class: "quiet" }, `Show all ${result.records.length} records`);
      more.addEventListener("click", () => {
        table.replaceChildren(recordsTable(result.records, Infinity, label));
        table.querySelector("[tabindex]").focus();
        more.remove();
      });
      yield more;
    }
  } else if (!error) {
    yield element("p", { class: "muted" }, "It has no records now, and says so: nothing broke.");
  }
  yield element("p", { class: "row small" },
    result.error ? null : element("a", { href: `/requests/${request}/${result.task}.csv`, download: "" }, "CSV"),
    element("a", { href: `/requests/${request}?task=${result.task}` }, "Hop by hop"));
}

/** What the time went into, as a bar with its legend. */
function timings(timing) {
  const parts = [["queued", timing.queued_ms], ["turn", timing.turn_ms], ["fetch", timing.fetch_ms], ["parse", timing.parse_ms]];
  const rest = Math.max(0, timing.total_ms - parts.reduce((sum, [, ms]) => sum + ms, 0));
  parts.push(["other", rest]); // RabbitMQ, and the ways there and home
  const whole = Math.max(timing.total_ms, 0.001);
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  bar.setAttribute("class", "bar");
  bar.setAttribute("viewBox", "0 0 100 6");
  bar.setAttribute("preserveAspectRatio", "none");
  bar.setAttribute("aria-hidden", "true");
  let at = 0;
  for (const [name, ms] of parts) {
    const wide = (100 * ms) / whole;
    const piece = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of Object.entries({ class: `part-${name}`, x: at, y: 0, width: Math.max(0, wide), height: 6 })) piece.setAttribute(key, value);
    bar.append(piece);
    at += wide;
  }
  const legend = element("p", { class: "legend small muted" },
    ...parts.filter(([, ms]) => ms >= 0.05).map(([name, ms]) => element("span", { class: `part-${name}` }, `${name === "other" ? "on the way" : name} ${msText(ms)}`)));
  return element("div", { class: "timing" }, bar, legend);
}

// The form

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const by = event.submitter;
  if (by?.name === "drop") location.assign(`${address()}&drop=${by.value}`);
  else if (by?.id === "add") location.assign(address());
  else start();
});
if (new URLSearchParams(location.search).has("drop")) history.replaceState(null, "", address());

cancel.addEventListener("click", async () => {
  if (running) await fetch(`/v1/requests/${running.id}`, { method: "DELETE" }).catch(() => {});
});

share.hidden = false;
share.addEventListener("click", async () => {
  const link = new URL(address(), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    say("The link is copied.");
    share.textContent = "Copied";
  } catch {
    history.replaceState(null, "", link);
    share.textContent = "It is in the address bar";
  }
  setTimeout(() => { share.textContent = "Copy a link to this"; }, 1500);
});

let later = 0;
form.addEventListener("input", (event) => {
  const error = document.getElementById(`${event.target.id}-error`);
  if (error?.textContent) {
    error.textContent = "";
    event.target.removeAttribute("aria-invalid");
  }
  clearTimeout(later);
  later = setTimeout(async () => {
    const to = address();
    history.replaceState(null, "", to);
    const page = await fetched(to).catch(() => null);
    if (page && to === address()) renew(page, ["codes"]);
  }, CODES_MS);
});
