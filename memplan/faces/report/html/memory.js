"use strict";
// Device memory over the seconds of a call, stacked, against the card's limit; and host memory below it.

/* Above the plot: room for the phases' names; inside: for the label of the peak. */
const HEADROOM = 1.3;
/* Columns in which a stretch of time is drawn at most. */
const COLUMNS = 900;

function memoryChart(place, sync, plan, lines, limit) {
  const top = lines.held[lines.peak], near = top > 0.4 * limit;
  const most = (near ? Math.max(limit, top) : top) * HEADROOM, phases = phasesOf(plan);
  const series = [...lines.bands].reverse().map(([, , colour]) => ({
    fill: () => theme.colour(colour), width: 0, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }),
  }));
  return new uPlot(overTime(sync, 330, lines.end, {
    padding: [24, RIGHT, 0, 0],
    scales: { y: { range: () => [0, most] } },
    axes: [timeAxis({ label: "", labelSize: 0, size: 22 }), gibAxis({ label: "device memory, GiB" })],
    series: [{}, ...series],
    hooks: { draw: [(u) => {
      drawPhases(u, phases, lines.t[lines.peak]);
      drawLimit(u, limit, near, { first: !near && lines.t[lines.peak] > lines.end / 2 });
      drawPeak(u, lines, plan.highest);
    }] },
  }), memoryData(lines, 0, lines.end), place);
}

/* Columns for uPlot: seconds, then for each band from the top down what is held up to it. */
function memoryData(lines, from, to) {
  const shown = highest(lines, from, to), stacks = [];
  let below = shown.map(() => 0);
  lines.bands.forEach((_, band) => stacks.unshift(below = shown.map(([, row], n) => below[n] + lines.rows[row][band])));
  return [shown.map(([second]) => second), ...stacks];
}

/* [second, row] of all rows between two seconds; where they are too many to be seen, of the highest in each column. */
function highest(lines, from, to) {
  const first = rowAt(lines.t, from), last = rowAt(lines.t, to), found = [];
  if (last - first < COLUMNS) {
    for (let row = first; row <= last; row++) found.push([lines.t[row], row]);
  } else {
    const width = (to - from) / COLUMNS;
    let row = first;
    for (let column = 0; column < COLUMNS; column++) {
      const until = from + (column + 1) * width;
      let best = row;
      for (; row < last && lines.t[row + 1] < until; row++) if (lines.held[row + 1] > lines.held[best]) best = row + 1;
      found.push([from + column * width, best]);
    }
  }
  return [...found, [Math.min(to, lines.end), last]];
}

function ramChart(place, sync, lines, limit) {
  const top = Math.max(...lines.host), near = top > 0.4 * limit, most = (near ? Math.max(limit, top) : top) * 1.25;
  const last = lines.host[lines.host.length - 1];
  return new uPlot(overTime(sync, 140, lines.end, {
    padding: [6, RIGHT, 0, 0],
    scales: { y: { range: () => [0, most] } },
    axes: [timeAxis(), gibAxis({ label: "RAM, GiB" })],
    series: [{}, {
      fill: () => theme.colour("ram"), width: 0, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }),
    }],
    hooks: { draw: [(u) => drawLimit(u, limit, near)] },
  }), [[...lines.t, lines.end], [...lines.host, last]], place);
}

/* The limit as a line with its words at its end, or its beginning; where it is far above, only the words. */
function drawLimit(u, limit, near, { first = false, around = true } = {}) {
  onCanvas(u, (ctx, bbox) => {
    const y = near ? u.valToPos(limit, "y", true) : bbox.top + pixels(u, 17);
    const words = `limit ${amount(limit)}${near ? "" : ", far above"}`;
    const x = bbox.left + (first ? pixels(u, 4) : bbox.width - pixels(u, 4));
    ctx.font = withFont(u, BOLD);
    ctx.textAlign = first ? "left" : "right";
    ctx.lineJoin = "round";
    ctx.strokeStyle = theme.colour("ground"); // around both, so that they show on what is stacked
    ctx.lineWidth = pixels(u, 4);
    if (near && around) across(ctx, bbox, y);
    ctx.strokeText(words, x, y - pixels(u, 6));
    ctx.strokeStyle = ctx.fillStyle = theme.colour("limit");
    ctx.lineWidth = pixels(u, 1.5);
    ctx.setLineDash([pixels(u, 7), pixels(u, 4)]);
    if (near) across(ctx, bbox, y);
    ctx.fillText(words, x, y - pixels(u, 6));
  });
}

function across(ctx, bbox, y) {
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
}

/* The peak: a dot, and a line up to its figure, its module and its op. */
function drawPeak(u, lines, words) {
  const n = lines.peak, next = lines.t[n + 1] ?? lines.end;
  const x = u.valToPos((lines.t[n] + next) / 2, "x", true), y = u.valToPos(lines.held[n], "y", true);
  if (x < u.bbox.left - 1 || x > u.bbox.left + u.bbox.width + 1) return;
  onCanvas(u, (ctx, bbox) => {
    const pad = pixels(u, 6), line = pixels(u, 15), head = `peak ${amount(lines.held[n])}`;
    ctx.font = withFont(u, FONT);
    while (ctx.measureText(words).width > bbox.width * 0.85) words = `…${words.replace(/^…/, "").slice(1)}`;
    const width = Math.max(ctx.measureText(words).width, ctx.measureText(head).width * 1.1) + 2 * pad;
    const most = bbox.left + bbox.width - width, left = Math.min(Math.max(x - pad, bbox.left), most);
    const top = bbox.top + pad / 2;
    ctx.strokeStyle = theme.colour("ink");
    ctx.beginPath();
    ctx.moveTo(x, top + 2 * line + pad);
    ctx.lineTo(x, y);
    ctx.stroke();
    ctx.fillStyle = theme.colour("ground");
    ctx.fillRect(left, top, width, 2 * line + pad);
    ctx.fillStyle = theme.colour("ink");
    ctx.fillText(words, left + pad, top + 2 * line);
    ctx.font = withFont(u, BOLD);
    ctx.fillText(head, left + pad, top + line);
    ctx.beginPath();
    ctx.arc(x, y, pixels(u, 3.5), 0, 2 * Math.PI);
    ctx.fill();
  });
}
