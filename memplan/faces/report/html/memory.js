"use strict";
// Device memory over the seconds of a call, stacked, against the card's limit; and host memory below it.

/* Above the plot: room for the phases' names; inside: for the label of the peak. */
const HEADROOM = 1.3;

function memoryChart(place, sync, plan, lines, limit) {
  const top = lines.held[lines.peak], near = top > 0.4 * limit;
  const most = (near ? Math.max(limit, top) : top) * HEADROOM, phases = phasesOf(plan);
  const stacks = [];
  let below = lines.t.map(() => 0);
  lines.bands.forEach((_, band) => stacks.push(below = lines.rows.map((row, n) => below[n] + row[band])));
  const ends = [...lines.t, lines.end], lasting = (values) => [...values, values[values.length - 1]];
  const order = lines.bands.map((_, n) => n).reverse();
  const filled = (n) => () => theme.colour(lines.bands[n][2]);
  const series = order.map((n) => ({
    fill: filled(n), width: 0, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }),
  }));
  return new uPlot(overTime(sync, 330, lines.end, {
    padding: [24, RIGHT, 0, 0],
    scales: { y: { range: () => [0, most] } },
    axes: [timeAxis({ label: "", labelSize: 0, size: 22 }), gibAxis({ label: "device memory, GiB" })],
    series: [{}, ...series],
    hooks: { draw: [(u) => {
      drawPhases(u, phases, true);
      drawLimit(u, limit, near ? `limit ${amount(limit)}` : `limit ${amount(limit)}, far above`, near);
      drawPeak(u, lines, plan.highest);
    }] },
  }), [ends, ...order.map((n) => lasting(stacks[n]))], place);
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
    hooks: { draw: [(u) => drawLimit(u, limit, near ? `limit ${amount(limit)}` : `limit ${amount(limit)}, far above`, near)] },
  }), [[...lines.t, lines.end], [...lines.host, last]], place);
}

/* The limit as a line with its words at the right end; where it is far above, only the words. */
function drawLimit(u, limit, words, near) {
  const { ctx, bbox } = u, y = near ? u.valToPos(limit, "y", true) : bbox.top + pixels(u, 16);
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = theme.colour("limit");
  ctx.font = withFont(u, BOLD);
  ctx.textAlign = "right";
  if (near) {
    ctx.lineWidth = pixels(u, 1.5);
    ctx.setLineDash([pixels(u, 7), pixels(u, 4)]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.fillText(words, bbox.left + bbox.width - pixels(u, 4), y - pixels(u, 5));
  ctx.restore();
}

/* The peak: a dot, and a line up to its figure, its module and its op. */
function drawPeak(u, lines, words) {
  const { ctx, bbox } = u, n = lines.peak, next = lines.t[n + 1] ?? lines.end;
  const x = u.valToPos((lines.t[n] + next) / 2, "x", true), y = u.valToPos(lines.held[n], "y", true);
  if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) return;
  const pad = pixels(u, 6), line = pixels(u, 15), texts = [`peak ${amount(lines.held[n])}`, words];
  ctx.save();
  ctx.font = withFont(u, FONT);
  const room = bbox.width * 0.72;
  while (ctx.measureText(texts[1]).width > room) texts[1] = `…${texts[1].replace(/^…/, "").slice(1)}`;
  const width = Math.max(...texts.map((text) => ctx.measureText(text).width)) + 2 * pad;
  const left = Math.min(Math.max(x - width / 2, bbox.left), bbox.left + bbox.width - width), top = bbox.top + pad / 2;
  ctx.strokeStyle = theme.colour("ink");
  ctx.lineWidth = pixels(u, 1);
  ctx.beginPath();
  ctx.moveTo(x, top + 2 * line + pad);
  ctx.lineTo(x, y);
  ctx.stroke();
  ctx.fillStyle = theme.colour("ground");
  ctx.fillRect(left, top, width, 2 * line + pad);
  ctx.fillStyle = theme.colour("ink");
  ctx.fillText(texts[1], left + pad, top + 2 * line);
  ctx.font = withFont(u, BOLD);
  ctx.fillText(texts[0], left + pad, top + line);
  ctx.beginPath();
  ctx.arc(x, y, pixels(u, 3.5), 0, 2 * Math.PI);
  ctx.fill();
  ctx.restore();
}
