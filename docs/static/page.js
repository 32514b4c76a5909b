// One framework at a time on a narrow screen, and the other language at the same place.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement;

  // The framework that a narrow screen shows. Whatever was at the top stays there.
  const switches = [...document.querySelectorAll(".switch button")];
  function choose(framework) {
    const rows = [...document.querySelectorAll(".columns .part")];
    const at = rows.find((row) => row.getBoundingClientRect().bottom > 120);
    const before = at?.getBoundingClientRect().top ?? 0;
    root.dataset.framework = framework;
    for (const button of switches) {
      button.setAttribute("aria-pressed", String(button.dataset.framework === framework));
    }
    if (at) window.scrollBy({ top: at.getBoundingClientRect().top - before, behavior: "instant" });
  }
  for (const button of switches) {
    button.addEventListener("click", () => choose(button.dataset.framework));
  }
  if (switches.length) choose("torch");

  // What scrolls by itself can be reached with the tab key.
  function makeScrollable() {
    for (const box of document.querySelectorAll(".table-wrapper, .formula, article pre")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }
  makeScrollable();
  window.addEventListener("resize", makeScrollable);

  // The link to the other language leads to the heading or part that is on the screen.
  const link = document.querySelector("a.language");
  link?.addEventListener("click", () => {
    const places = [...document.querySelectorAll("main section[id], article section[id]")];
    const passed = places.filter((place) => place.getBoundingClientRect().top < 120);
    const last = passed.at(-1);
    const top = document.scrollingElement.scrollTop < 120;
    link.hash = last && !top ? `#${last.id}` : "";
  });
});
