"use strict";
// What the charts have in common: words for figures, axes, phases, and one stretch of time for the charts of a plan.
const GIB = 2 ** 30, MIB = 2 ** 20;
const FONT = '12px system-ui, "Segoe UI", sans-serif', BOLD = `600 ${FONT}`;
const LEFT = 62, RIGHT = 14;

const amount = (bytes) => (bytes >= GIB ? `${(bytes / GIB).toFixed(2)} GiB` : `${Math.round(bytes / MIB)} MiB`);

function duration(seconds) {
  if (seconds < 1) return seconds < 0.01 ? `${(seconds * 1000).toFixed(2)} ms` : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), two = (n) => String(n).padStart(2, "0");
  return minutes < 60 ? `${minutes} min ${two(whole % 60)} s` : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

const pixels = (u, n) => n * (u.ctx.canvas.width / u.width);
const withFont = (u, font) => font.replace(/(\d+)px/, (_, size) => `${pixels(u, Number(size))}px`);

function axis(more) {
  return {
    stroke: () => theme.colour("soft"), font: FONT, labelFont: FONT, labelSize: 20, labelGap: 0, size: 42, gap: 4,
    grid: { stroke: () => theme.colour("line"), width: 1 }, ticks: { stroke: () => theme.colour("line"), width: 1, size: 4 },
    ...more,
  };
}

const figures = (unit, places) => (u, ticks) => ticks.map((value) => `${Number((value / unit).toPrecision(places))}`);
const timeAxis = (more) => axis({ label: "time of the call", values: clock, splits: timeSplits, ...more });
const gibAxis = (more) => axis({ label: "GiB", size: LEFT - 20, values: figures(GIB, 4), splits: gibSplits, ...more });

/* Times are written in minutes where more than ten of them are shown, else in seconds. */
const unitOf = (min, max) => (max - min > 600 ? 60 : 1);

function clock(u, ticks) {
  const unit = unitOf(u.scales.x.min, u.scales.x.max);
  return ticks.map((at) => (at === null ? "" : `${Number((at / unit).toPrecision(8))} ${unit === 60 ? "min" : "s"}`));
}

/* Round steps of the unit, as far apart as their words need. */
function timeSplits(u, n, min, max) {
  const unit = unitOf(min, max), least = Math.max(max - min, 1e-9) / Math.max(u.width / 85, 2) / unit;
  const ten = 10 ** Math.floor(Math.log10(least)), steps = unit === 60 ? [1, 2, 3, 5, 6, 10] : [1, 2, 5, 10];
  const step = steps.map((one) => one * Math.max(ten, unit === 60 ? 1 : 0)).find((one) => one >= least) * unit, found = [];
  for (let at = Math.ceil(min / step); at * step <= max; at++) found.push(at * step);
  return found;
}

/* Round steps of GiB, as bytes are powers of two and axes would be cut at powers of ten. */
function gibSplits(u, n, min, max) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 100, 200, 500];
  const step = steps.find((s) => (max - min) / GIB / s <= Math.max(u.height / 55, 2)) * GIB;
  const found = [];
  for (let at = Math.ceil(min / step) * step; at <= max; at += step) found.push(at);
  return found;
}

/* What is drawn on a canvas that uPlot has left in a state of its own. */
function onCanvas(u, draw) {
  const { ctx } = u;
  ctx.save();
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.lineWidth = pixels(u, 1);
  draw(ctx, u.bbox);
  ctx.restore();
}

/* Lines where phases begin; and where `peak` is the second of the highest moment, their names above. */
function drawPhases(u, phases, peak = null) {
  onCanvas(u, (ctx, bbox) => {
    const shown = [], right = bbox.left + bbox.width;
    for (const { name, begin, end } of phases) {
      const from = Math.max(u.valToPos(begin, "x", true), bbox.left), to = Math.min(u.valToPos(end, "x", true), right);
      if (to < from) continue;
      shown.push({ name, from, to, worth: to - from >= pixels(u, 1) || (begin <= peak && peak < end) });
      ctx.strokeStyle = theme.colour("soft");
      ctx.globalAlpha = 0.55;
      ctx.setLineDash([pixels(u, 3), pixels(u, 3)]);
      ctx.beginPath();
      ctx.moveTo(from, bbox.top - (peak === null ? 0 : pixels(u, 18)));
      ctx.lineTo(from, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
    ctx.font = withFont(u, FONT);
    ctx.fillStyle = theme.colour("ink");
    const named = peak === null ? [] : placed(ctx, shown.filter(({ worth }) => worth), bbox.left, right, pixels(u, 4));
    named.forEach(([name, left]) => ctx.fillText(name, left, bbox.top - pixels(u, 6)));
  });
}

/* [name, left]: over a phase, or where that is too narrow behind or before it, as long as names do not meet. */
function placed(ctx, phases, left, right, gap) {
  const taken = [];
  const free = (from, to) => from >= left && to <= right && taken.every(([, a, b]) => to + gap <= a || b + gap <= from);
  const width = (name) => ctx.measureText(name).width;
  const isWide = ({ name, from, to }) => width(name) + 2 * gap < to - from;
  for (const { name, from, to } of phases.filter(isWide)) {
    taken.push([name, (from + to - width(name)) / 2, (from + to + width(name)) / 2]);
  }
  for (const { name, from, to } of phases.filter((phase) => !isWide(phase))) {
    const starts = [to + gap, from - gap - width(name)];
    const at = starts.find((start) => free(start, start + width(name)));
    if (at !== undefined) taken.push([name, at, at + width(name)]);
  }
  return taken;
}

/* The charts of one plan show the same stretch of time. Who is told gets its data ready before they do. */
function together(charts, end) {
  const told = [];
  let shown = [0, end];
  function show(from, to) {
    if (from === shown[0] && to === shown[1]) return;
    shown = [from, to];
    told.forEach((tell) => tell(from, to));
    charts.forEach((u) => u.setScale("x", { min: from, max: to }));
  }
  return { show, all: () => show(0, end), onChange: (tell) => told.push(tell) };
}

/* Options of a chart over time; `sync` names the plan. */
function overTime(sync, height, end, more) {
  return {
    width: 800, height, legend: { show: false }, pxAlign: 0,
    cursor: {
      y: false, points: { show: false }, drag: { x: true, y: false, setScale: true },
      sync: { key: sync, setSeries: false, scales: ["x", null] },
    },
    ...more,
    scales: { x: { time: false, range: (u, min, max) => [min ?? 0, max ?? end] }, ...more.scales },
  };
}

/* The last row that begins no later than `second`. */
function rowAt(t, second) {
  let low = 0, high = t.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (t[middle] <= second) low = middle; else high = middle - 1;
  }
  return low;
}
