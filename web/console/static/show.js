// Small pieces that scripts show: elements of texts alone (never of markup), figures for people, records as a table.

/** A number whose spelling in JSON is not what JavaScript makes of it. */
class Spelled {
  constructor(text) { this.text = text; }
  toJSON() { return JSON.rawJSON ? JSON.rawJSON(this.text) : Number(this.text); }
}

/** A result of the event stream. The numbers of its records keep their spelling. */
export function parsed(text) {
  const result = JSON.parse(text);
  result.records = JSON.parse(text, (_, value, context) => (
    typeof value === "number" && context?.source !== undefined && context.source !== String(value)
      ? new Spelled(context.source) : value
  )).records;
  return result;
}

/** Control characters, marks that change the direction, and halves of pairs, shown as escapes: as web/http/markup.py does. */
export function visible(text) {
  return text.replace(
    // eslint-disable-next-line no-control-regex
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
    (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** An element with attributes and children; null leaves one out. Texts stay texts. */
export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const child of children) {
    if (child === null || child === undefined) continue;
    made.append(typeof child === "object" ? child : visible(String(child)));
  }
  return made;
}

export function bytesText(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = count;
  let at = 0;
  while (Math.abs(size) >= 1000 && at < units.length - 1) { size /= 1000; at += 1; }
  return `${at === 0 || Math.abs(size) >= 10 ? size.toFixed(0) : size.toFixed(1)} ${units[at]}`;
}

export function msText(ms) {
  if (Math.abs(ms) >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return Math.abs(ms) < 10 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(0)} ms`;
}

/** The first `most` records as a table that scrolls by itself. */
export function recordsTable(records, most, label) {
  const shown = records.slice(0, most);
  const names = new Set();
  for (const record of shown) for (const key of Object.keys(record)) names.add(key);
  const columns = [...names];
  const numeric = columns.map((column) => shown.some((one) => isNumber(own(one, column))) && shown.every((one) => (own(one, column) ?? null) === null || isNumber(own(one, column))));
  const wordy = columns.map((column) => shown.some((one) => String(own(one, column) ?? "").length > 24));
  const head = element("thead", {}, element("tr", {}, ...columns.map((column, at) => element("th", numeric[at] ? { scope: "col", class: "number" } : { scope: "col" }, column))));
  const body = element("tbody", {});
  for (const record of shown) {
    body.append(element("tr", {}, ...columns.map((column, at) => cell(own(record, column), numeric[at], wordy[at]))));
  }
  return element("div", { class: "scroll records", tabindex: "0", role: "region", "aria-label": `Records of ${label}` }, element("table", {}, head, body));
}

// A page may name a field "constructor".
function own(record, name) {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}

function isNumber(value) {
  return typeof value === "number" || value instanceof Spelled;
}

function cell(value, isRight, isWordy) {
  const attributes = isRight ? { class: "number" } : isWordy ? { class: "wordy" } : {};
  if (value === null || value === undefined) return element("td", { ...attributes, class: "null" }, "–");
  if (value instanceof Spelled) return element("td", attributes, value.text);
  if (typeof value === "string") {
    const link = /^https?:\/\/[!-~]+$/.test(value);
    return element("td", attributes, link ? element("a", { href: value, rel: "noreferrer noopener nofollow", target: "_blank" }, value) : value);
  }
  if (typeof value === "object") return element("td", { class: "mono" }, JSON.stringify(value));
  return element("td", attributes, String(value));
}
