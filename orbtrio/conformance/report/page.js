
"use strict";
(() => {
  const form = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const cases = Array.from(document.querySelectorAll("tbody.case"));
  const areas = Array.from(document.querySelectorAll("tbody.area"));
  const quiet = ["PASS", "INFO", "SKIP"];
  const texts = new Map();
  const textOf = (body) => {
    if (!texts.has(body)) texts.set(body, body.textContent.toLowerCase());
    return texts.get(body);
  };
  const chosen = (name) =>
    new Set(Array.from(form.querySelectorAll(`input[name=${name}]:checked`), (box) => box.value));

  function apply() {
    const verdicts = chosen("verdict");
    const levels = chosen("level");
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const body of cases) {
      const fits =
        body.dataset.verdicts.split(" ").some((verdict) => verdicts.has(verdict)) &&
        body.dataset.levels.split(" ").some((level) => levels.has(level)) &&
        words.every((word) => textOf(body).includes(word));
      body.hidden = !fits;
      count += fits ? 1 : 0;
    }
    for (const area of areas) {
      let next = area.nextElementSibling;
      let empty = true;
      while (next && next.classList.contains("case")) {
        empty = empty && next.hidden;
        next = next.nextElementSibling;
      }
      area.hidden = empty;
    }
    shown.textContent = `${count} of ${cases.length} cases shown`;
  }

  function openNamed() {
    const body = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (body && body.classList.contains("case")) body.querySelector("details").open = true;
  }

  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.getElementById("problems").addEventListener("click", () => {
    for (const box of form.querySelectorAll("input[name=verdict]")) box.checked = !quiet.includes(box.value);
    apply();
  });
  addEventListener("hashchange", openNamed);
  form.hidden = false;
  apply();
  openNamed();
})();
