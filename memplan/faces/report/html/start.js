"use strict";
// Draws every chart, and draws it anew for another theme, another width and the printer.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const answer = read("answer"), timelines = read("timelines"), charts = [];
const limits = { vram: answer.machine.vram, ram: answer.machine.ram };
const PAPER = 690;
/* Seconds of a phase that has a button of its own, at least. */
const LEAST = 1e-4;

/* Squares with words, and figures where there are any: [[words, colour, figure]]. */
function legend(place, entries, round) {
  place.replaceChildren(...entries.map(([words, colour, figure]) => {
    const span = document.createElement("span"), square = document.createElement("i"), bold = document.createElement("b");
    square.style.background = `var(--${colour})`;
    square.className = round ? "round" : "";
    bold.textContent = figure;
    span.append(square, words, bold);
    return span;
  }));
}

function drawPlan(plan, number) {
  const at = (name) => document.getElementById(`${name}-${number}`), sync = `plan-${number}`;
  const lines = expanded(plan), peak = lines.at[lines.peak], words = at("moment").textContent;
  plan.highest = `${peak.stretch.phase}: ${timelines.places[peak.place] ?? ""}`;
  const memory = memoryChart(at("memory"), sync, plan, lines, limits.vram);
  const [lanes, spans] = lanesChart(at("lanes"), sync, plan, lines);
  const own = [memory, lanes, ramChart(at("ram"), sync, lines, limits.ram)];
  const time = together(own, lines.end);
  at("memory").dataset.peak = lines.held[lines.peak];
  at("memory").dataset.seconds = lines.end;
  at("memory").dataset.phases = JSON.stringify(highestOf(lines));

  function tell(row, second) {
    const values = lines.rows[row];
    legend(at("bands"), lines.bands.map(([, name, colour], n) => [name, colour, amount(values[n])]).reverse());
    at("moment").textContent = second === null ? words : moment(lines, row, second, spans);
  }
  time.onChange((from, to) => memory.setData(memoryData(lines, from, to), false));
  own.forEach((u) => {
    u.over.addEventListener("dblclick", time.all);
    u.hooks.setScale = [(_, key) => key === "x" && time.show(u.scales.x.min, u.scales.x.max)];
  });
  memory.hooks.setCursor = [(u) => {
    const { left } = u.cursor;
    if (left < 0 || left === null) return tell(lines.peak, null);
    const second = u.posToVal(left, "x");
    tell(rowAt(lines.t, second), second);
  }];
  tell(lines.peak, null);
  buttons(at("phases"), plan, time, lines.end);
  charts.push(...own);
}

/* The highest of each phase and component, as the bill has it. */
function highestOf(lines) {
  const found = {};
  lines.at.forEach(({ stretch }, n) => {
    const key = `${stretch.phase}/${stretch.component}`;
    found[key] = Math.max(found[key] ?? 0, lines.held[n]);
  });
  return found;
}

/* What goes on at a second, in words. */
function moment(lines, row, second, spans) {
  const { stretch, run, place } = lines.at[row];
  const which = stretch.repeat > 1 && run >= 0 ? ` ${run + 1} of ${stretch.repeat}` : "";
  const what = run < 0 ? "components are moved" : `${timelines.places[place]}${which && `, call${which}`}`;
  const memory = `${amount(lines.held[row])} of device memory, ${amount(lines.host[row])} of RAM`;
  return `${duration(second)}, ${stretch.phase}: ${memory}; ${what}; ${busyAt(spans, second)}`;
}

function buttons(place, plan, time, end) {
  const named = [["whole call", 0, end]];
  for (const phase of phasesOf(plan)) {
    if (phase.end - phase.begin < LEAST) continue;
    named.push([`${phase.name} ${duration(phase.end - phase.begin)}`, phase.begin, phase.end]);
    if (phase.calls > 2) named.push([`${phase.name}: one call ${duration(phase.longest)}`, ...phase.one]);
  }
  const made = named.map(([words, from, to]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words;
    button.addEventListener("click", () => time.show(from, to));
    return [button, from, to];
  });
  const mark = (from, to) => made.forEach(([button, a, b]) => button.setAttribute("aria-pressed", a === from && b === to));
  time.onChange(mark);
  mark(0, end);
  place.replaceChildren(...made.map(([button]) => button));
}

function fit(width) {
  charts.forEach((u) => u.setSize({ width: width ?? u.root.parentNode.clientWidth, height: u.height }));
}

const points = read("front");
if (points.length) charts.push(frontChart(document.getElementById("scatter"), points, limits.vram));
timelines.plans.forEach(drawPlan);
fit();
theme.onChange(() => charts.forEach((u) => u.redraw(false, true)));
addEventListener("resize", () => fit());
addEventListener("beforeprint", () => { theme.force("light"); fit(PAPER); });
addEventListener("afterprint", () => { theme.force(""); fit(); });
document.documentElement.dataset.ready = "true";
