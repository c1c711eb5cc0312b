// A link from another site brings no cookie (SameSite=Strict). This page may use it: whoever has a session goes on at once.

const form = document.querySelector("form[action='/signin']");
if (form && !document.getElementById("key-error")) {
  const next = form.elements.next.value;
  const answer = await fetch(next, { redirect: "manual", headers: { Accept: "text/html" } });
  if (answer.ok) location.replace(next);
}
