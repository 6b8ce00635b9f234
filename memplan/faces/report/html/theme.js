"use strict";
// Light or dark: as the system has it, until somebody chooses. Whoever draws is told of each change.
const theme = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const names = { "": "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
  const told = [];
  let chosen = "", forced = "";

  function show() {
    document.documentElement.dataset.theme = forced || chosen || (dark.matches ? "dark" : "light");
    document.getElementById("theme").textContent = names[chosen];
    told.forEach((tell) => tell());
  }

  function next() {
    const order = ["", "light", "dark"];
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    show();
  }

  document.getElementById("theme").addEventListener("click", next);
  dark.addEventListener("change", show);
  show();
  return {
    colour: (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(),
    onChange: (tell) => told.push(tell),
    force: (name) => { forced = name; show(); },
  };
})();
