// Filters the catalogue while somebody writes. Without a script the form asks the gateway.
const form = document.querySelector("form.find");
const count = document.getElementById("count");
const tests = document.querySelector("details.tests");
let timer = 0;

function filter() {
  const words = form.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const { health, region } = { health: form.health.value, region: form.region.value };
  const rows = [...document.querySelectorAll("tr[data-find]")];  // the tables are read again now and then
  let shown = 0;
  for (const row of rows) {
    const { find, health: its, region: where } = row.dataset;
    row.hidden = !(words.every((word) => find.includes(word)) && (!health || health === its) && (!region || region === where));
    if (!row.hidden) shown += 1;
  }
  for (const table of document.querySelectorAll("table.catalogue")) {
    table.hidden = ![...table.tBodies[0].rows].some((row) => !row.hidden);
  }
  if (tests && words.length) tests.open = true;
  const address = new URL(location.href);
  for (const name of ["q", "health", "region"]) {
    if (form[name].value) address.searchParams.set(name, form[name].value);
    else address.searchParams.delete(name);
  }
  history.replaceState(null, "", address);
  clearTimeout(timer);  // whoever listens to the page hears the number when the writing pauses
  timer = setTimeout(() => {
    count.textContent = shown === rows.length ? `${shown} sources` : `${shown} of ${rows.length} sources`;
  }, 400);
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
