// Older requests are added to the list, in place of a page of their own.

import { enhance, fetched, say } from "./frame.js";

const said = document.createElement("p");
said.className = "muted small";
said.setAttribute("role", "status");
document.getElementById("older")?.parentElement.after(said);

function watch() {
  const older = document.getElementById("older");
  older?.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    older.setAttribute("aria-busy", "true");
    const page = await fetched(older.href).catch(() => null);
    older.removeAttribute("aria-busy");
    if (!page?.querySelector("#found tbody")) {
      said.textContent = page?.querySelector("#found, main")?.textContent ?? "The gateway does not answer.";
      return;
    }
    said.textContent = "";
    delete document.getElementById("found").dataset.refresh; // it would be cut to its first page again
    const rows = [...page.querySelectorAll("#found tbody tr")];
    document.querySelector("#found tbody").append(...rows.map((row) => document.adoptNode(row)));
    rows.forEach(enhance);
    say(`${rows.length} older requests`);
    rows[0]?.querySelector("a")?.focus();
    const next = page.getElementById("older");
    if (next) {
      older.replaceWith(document.adoptNode(next));
      watch();
    } else {
      older.remove();
    }
  });
}

watch();
