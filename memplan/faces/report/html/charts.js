"use strict";
// What the charts have in common: words for figures, axes, phases, and one stretch of time for the charts of a plan.
const GIB = 2 ** 30, MIB = 2 ** 20;
const FONT = '12px system-ui, "Segoe UI", sans-serif', BOLD = `600 ${FONT}`;
const LEFT = 62, RIGHT = 14;

const amount = (bytes) => (bytes >= GIB ? `${(bytes / GIB).toFixed(2)} GiB` : `${Math.round(bytes / MIB)} MiB`);

function duration(seconds) {
  if (seconds < 1) return seconds < 0.01 ? `${(seconds * 1000).toFixed(2)} ms` : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
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
const timeAxis = (more) => axis({ label: "seconds of the call", values: figures(1, 8), ...more });
const gibAxis = (more) => axis({ label: "GiB", size: LEFT - 20, values: figures(GIB, 4), splits: gibSplits, ...more });

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

/* Lines where phases begin, and their names above where there is room. */
function drawPhases(u, phases, named) {
  onCanvas(u, (ctx, bbox) => {
    ctx.font = withFont(u, FONT);
    ctx.textAlign = "center";
    for (const phase of phases) {
      const from = Math.max(u.valToPos(phase.begin, "x", true), bbox.left);
      const to = Math.min(u.valToPos(phase.end, "x", true), bbox.left + bbox.width);
      if (to < from) continue;
      ctx.strokeStyle = theme.colour("soft");
      ctx.globalAlpha = 0.55;
      ctx.setLineDash([pixels(u, 3), pixels(u, 3)]);
      ctx.beginPath();
      ctx.moveTo(from, bbox.top - (named ? pixels(u, 18) : 0));
      ctx.lineTo(from, bbox.top + bbox.height);
      ctx.stroke();
      ctx.globalAlpha = 1;
      ctx.fillStyle = theme.colour("ink");
      if (named && ctx.measureText(phase.name).width + pixels(u, 8) < to - from) {
        ctx.fillText(phase.name, (from + to) / 2, bbox.top - pixels(u, 6));
      }
    }
  });
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
