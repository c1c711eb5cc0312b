// What every page has: buttons to copy code, times in the reader's zone, and parts that keep themselves up to date.

const CLOCK = { hour: "numeric", minute: "2-digit", second: "2-digit" };
const thisYear = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", ...CLOCK });
const otherYear = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", ...CLOCK });

/** Adds to a part of the page what its markup asks for; call it for parts that come later, too. */
export function enhance(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    if (!Number.isNaN(date.getTime())) {
      time.title = time.dateTime;
      time.textContent = (date.getFullYear() === new Date().getFullYear() ? thisYear : otherYear).format(date);
    }
  }
  for (const box of root.querySelectorAll("[data-copy]")) {
    if (box.querySelector("button.copy")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy quiet";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${box.dataset.copy}`);
    button.addEventListener("click", () => copy(button, box.querySelector("code").textContent));
    box.append(button);
  }
}

async function copy(button, text) {
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = legacyCopy(text) ? "Copied" : "Select it and copy";
  }
  button.textContent = said;
  say(said);
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// Browsers have navigator.clipboard only on https and on this machine.
function legacyCopy(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** Says something to those who listen to the page. */
export function say(text) {
  let status = document.getElementById("said");
  if (!status) {
    status = document.createElement("p");
    status.id = "said";
    status.className = "unseen";
    status.setAttribute("role", "status");
    document.body.append(status);
  }
  status.textContent = text;
}

/** A page of this gateway as a document; null if it could not be read. After a session has ended the reader signs in again. */
export async function fetched(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (answer.redirected && new URL(answer.url).pathname === "/signin") {
    location.assign(answer.url);
    return null;
  }
  if (!answer.ok) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

const sent = new Map(); // by id, what the gateway sent: times are changed after that
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

/** Replaces elements by those with the same ids of a page that was read again, where the gateway says something new. */
export function renew(page, ids) {
  for (const id of ids) {
    const there = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!there || !fresh || sent.get(id) === fresh.innerHTML) continue;
    const active = there.contains(document.activeElement) ? document.activeElement : null;
    if (active?.matches("input, select, textarea")) continue; // somebody writes
    const place = active ? [...there.querySelectorAll(FOCUSABLE)].indexOf(active) : -1;
    const scrolled = [...there.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
    const opened = [...there.querySelectorAll("details")].map((one) => one.open);
    sent.set(id, fresh.innerHTML);
    there.replaceWith(document.adoptNode(fresh));
    enhance(fresh);
    fresh.querySelectorAll(".scroll").forEach((one, at) => { [one.scrollLeft, one.scrollTop] = scrolled[at] ?? [0, 0]; });
    fresh.querySelectorAll("details").forEach((one, at) => { one.open ||= opened[at] ?? false; });
    if (place >= 0) fresh.querySelectorAll(FOCUSABLE)[place]?.focus({ preventScroll: true });
  }
}

// An element with an id and data-refresh="SECONDS" is read again from its own page, as long as the page is looked at.
function refresh() {
  const due = [...document.querySelectorAll("[id][data-refresh]")];
  const seconds = Math.min(...due.map((one) => Number(one.dataset.refresh)));
  if (!Number.isFinite(seconds)) return;
  setTimeout(async () => {
    if (!document.hidden) {
      try {
        const page = await fetched(location.href);
        // A list that was made longer meanwhile is left alone.
        if (page) renew(page, due.map((one) => one.id).filter((id) => document.getElementById(id)?.dataset.refresh));
      } catch { /* the gateway does not answer: the next try may */ }
    }
    refresh();
  }, Math.max(1, seconds) * 1000);
}

for (const one of document.querySelectorAll("[id][data-refresh]")) sent.set(one.id, one.innerHTML);
enhance(document);
refresh();
