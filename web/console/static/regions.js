// Keeps the lanes as they are now. The stream is closed while nobody looks at the page.
import { enhance, say } from "./frame.js";

const lanes = document.getElementById("lanes");
const live = document.getElementById("live");
const AGAIN_MS = 10_000;
let stream = null;
let timer = 0;

function tell(text) {
  if (live.textContent !== text) live.textContent = text;
}

function time() {
  return new Date().toLocaleTimeString();
}

/** Replaces the parts of a lane that have changed, unless they have the focus. */
function put(there, fresh) {
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = there.querySelector(`[data-part="${part.dataset.part}"]`);
    enhance(part);
    if (!old || old.innerHTML === part.innerHTML || old.contains(document.activeElement)) continue;
    const was = old.querySelector("details");
    const now = part.querySelector("details");
    if (was && now) now.open = was.open;
    old.replaceWith(part);
  }
  there.dataset.status = fresh.dataset.status;
}

function region(event) {
  const told = JSON.parse(event.data);
  const fresh = document.adoptNode(new DOMParser().parseFromString(told.html, "text/html").querySelector(".lane"));
  const there = document.getElementById(fresh.id);
  if (!there) {
    lanes.querySelector(".empty")?.remove();
    enhance(fresh);
    lanes.append(fresh);
  } else {
    const was = there.dataset.status;
    put(there, fresh);
    if (was !== told.status) say(`${told.title} is ${told.status}`);
  }
  tell("Live.");
}

function open() {
  clearTimeout(timer);
  if (stream || document.hidden) return;
  stream = new EventSource("/regions/live");
  stream.addEventListener("region", region);
  stream.addEventListener("gone", (event) => {
    document.getElementById(`lane-${JSON.parse(event.data).name}`)?.remove();
  });
  stream.addEventListener("unavailable", (event) => {
    tell(`Not live since ${time()}: ${JSON.parse(event.data).reason}.`);
  });
  stream.addEventListener("error", () => {
    if (live.dataset.lost !== "1") tell(`Not live since ${time()}: the gateway does not answer.`);
    live.dataset.lost = "1";
    if (stream && stream.readyState === EventSource.CLOSED) {  // refused: the browser does not ask again by itself
      close();
      timer = setTimeout(open, AGAIN_MS);
    }
  });
  stream.addEventListener("open", () => { delete live.dataset.lost; });
}

function close() {
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
addEventListener("pagehide", close);
addEventListener("pageshow", open);
open();
