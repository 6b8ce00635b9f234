"use strict";
// What is busy when: the device, the link, and the CPU where it computes in components' place.
const LANES = { device: "GPU computes", link: "link copies", cpu: "CPU computes" };
const SHORT = { device: "GPU busy", link: "link busy", cpu: "CPU busy" };

function lanesChart(place, sync, plan, lines) {
  const found = Object.keys(LANES).map((lane) => [lane, busy(plan, lane)]);
  const shown = found.filter(([lane, spans]) => lane !== "cpu" || spans.length), phases = phasesOf(plan);
  const chart = new uPlot(overTime(sync, 34 * shown.length + 10, lines.end, {
    padding: [4, RIGHT, 0, 0],
    scales: { y: { range: () => [0, shown.length] } },
    axes: [axis({ show: false }), axis({
      size: LEFT, grid: { show: false }, ticks: { show: false }, splits: () => shown.map((_, n) => n + 0.5),
      values: () => shown.map(([lane]) => SHORT[lane]).reverse(),
    })],
    series: [{}, { paths: () => null, points: { show: false } }],
    hooks: { draw: [(u) => {
      shown.forEach(([lane, spans], n) => drawLane(u, lane, spans, shown.length - 1 - n));
      drawPhases(u, phases);
    }] },
  }), [[...lines.t, lines.end], [...lines.t, lines.end].map(() => 0)], place);
  return [chart, new Map(found)];
}

/* Bars as high as the share of their time in which the lane is busy. */
function drawLane(u, lane, spans, row) {
  onCanvas(u, (ctx, bbox) => {
    const height = bbox.height / Math.round(u.scales.y.max), gap = pixels(u, 3), room = height - 2 * gap;
    const floor = bbox.top + bbox.height - row * height - gap;
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.fillStyle = theme.colour("line");
    ctx.globalAlpha = 0.45;
    ctx.fillRect(bbox.left, floor - room, bbox.width, room);
    ctx.globalAlpha = 1;
    ctx.fillStyle = theme.colour(lane);
    for (const [begin, end, share] of spans) {
      const from = Math.round(u.valToPos(begin, "x", true)), to = Math.round(u.valToPos(end, "x", true));
      if (to < bbox.left || from > bbox.left + bbox.width) continue;
      ctx.fillRect(from, floor - share * room, Math.max(to - from, 1), share * room);
    }
  });
}

/* Which share of the slice at `second` a lane is busy, in words. */
function busyAt(found, second) {
  const words = [];
  for (const [lane, spans] of found) {
    const span = spans.find(([begin, end]) => begin <= second && second < end);
    if (spans.length) words.push(`${LANES[lane]} ${Math.round(100 * (span ? span[2] : 0))} %`);
  }
  return words.join(", ");
}
