// Finds sources while one types, and counts those that are chosen.

const field = document.getElementById("q");
const list = document.getElementById("sources");
const none = document.getElementById("none");
const foot = document.querySelector(".foot");
const told = document.getElementById("chosen");
const cards = [...list.children];

function find() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    card.hidden = !words.every((word) => card.dataset.find.includes(word));
    if (!card.hidden) shown += 1;
  }
  none.hidden = shown > 0;
  foot.hidden = shown === 0;
}

function count() {
  const chosen = list.querySelectorAll("input:checked").length;
  told.textContent = chosen ? `${chosen} chosen` : "Choose any number of them.";
}

// Only what is here can be found here: a list that the gateway has cut down is asked for again.
if (!new URLSearchParams(location.search).get("q")) {
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    list.querySelector("li:not([hidden]) a")?.click();
  });
  field.addEventListener("input", find);
  find();
}
list.addEventListener("change", count);
count();
