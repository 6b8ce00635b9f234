"use strict";
// The front: seconds against device memory, with the colour of the loss; picks are larger and have names.
const LOSSES = ["exact", "near-lossless", "slight", "visible", "not predicted"];

function frontChart(place, points, limit) {
  const sorted = [...points].sort((a, b) => a.seconds - b.seconds);
  const shown = LOSSES.filter((loss) => sorted.some((point) => point.loss === loss));
  const column = (keep) => sorted.map((point) => (keep(point) ? point.required : null));
  const dots = (keep, loss, size, ring) => ({
    keep, paths: () => null,
    points: { show: true, size, width: ring, fill: () => theme.colour(loss), stroke: () => theme.colour("ink"), space: 0 },
  });
  const named = (loss) => loss.replace(" ", "-");
  const series = [
    ...shown.map((loss) => dots((p) => p.loss === loss && !p.picks.length, named(loss), 7, 0)),
    ...shown.map((loss) => dots((p) => p.loss === loss && p.picks.length, named(loss), 13, 1.5)),
  ];
  const most = Math.max(...sorted.map((point) => point.required)), line = limit < 1.6 * most;
  const times = sorted.map((point) => point.seconds), wide = times[times.length - 1] > 8 * times[0];
  legend(document.getElementById("losses"), shown.map((loss) => [loss, named(loss), ""]), true);
  let nearest = null;
  const u = new uPlot({
    width: 800, height: 330, legend: { show: false }, padding: [18, 24, 0, 0],
    cursor: { drag: { x: true, y: true }, points: { show: false }, x: false, y: false },
    scales: {
      x: { time: false, distr: wide ? 3 : 1, range: (u, min, max) => (wide ? [min * 0.93, max * 1.08] : [Math.max(min - 0.05 * (max - min) - 0.01, 0), max + 0.05 * (max - min) + 0.01]) },
      y: { range: (u, min, max) => (u.zoomed ? [min, max] : [0, Math.max(most, line ? limit : 0) * 1.12]) },
    },
    axes: [
      axis({ label: `seconds per call${wide ? ", logarithmic" : ""}`, values: (u, ticks) => ticks.map((s) => (s === null ? null : `${Number(s.toPrecision(6))}`)) }),
      gibAxis({ label: "VRAM, GiB" }),
    ],
    series: [{}, ...series],
    hooks: {
      draw: [(u) => { if (line) drawLimit(u, limit, `limit ${amount(limit)}`, true); drawNames(u, sorted); }],
      setCursor: [(u) => {
        const found = closest(u, sorted);
        if (found !== nearest) tellPoint(nearest = found);
      }],
    },
  }, [times, ...series.map((one) => column(one.keep))], place);
  tellPoint(null);
  return u;
}

function drawNames(u, points) {
  const { ctx, bbox } = u, taken = [];
  ctx.save();
  ctx.font = withFont(u, BOLD);
  ctx.fillStyle = theme.colour("ink");
  for (const point of points.filter((one) => one.picks.length)) {
    const x = u.valToPos(point.seconds, "x", true), y = u.valToPos(point.required, "y", true);
    const text = point.picks.join(", "), width = ctx.measureText(text).width, high = pixels(u, 16);
    const spots = [[11, 4], [11, -12], [11, 20], [-11, 4], [-11, -12], [-11, 20], [11, 36], [11, -28]];
    const boxes = spots.map(([dx, dy]) => [x + pixels(u, dx) - (dx < 0 ? width : 0), y + pixels(u, dy)]);
    const free = ([left, base]) => left > bbox.left && left + width < bbox.left + bbox.width + pixels(u, 20)
      && !taken.some(([l, b, w]) => left < l + w && l < left + width && Math.abs(b - base) < high);
    const [left, base] = boxes.find(free) ?? boxes[0];
    taken.push([left, base, width]);
    ctx.strokeStyle = theme.colour("ground");
    ctx.lineWidth = pixels(u, 4);
    ctx.lineJoin = "round";
    ctx.strokeText(text, left, base);
    ctx.fillText(text, left, base);
  }
  ctx.restore();
}

function closest(u, points) {
  const { left, top } = u.cursor;
  let best = null, least = 30 ** 2;
  for (const point of left < 0 ? [] : points) {
    const away = (u.valToPos(point.seconds, "x") - left) ** 2 + (u.valToPos(point.required, "y") - top) ** 2;
    if (away < least) [best, least] = [point, away];
  }
  return best;
}

function tellPoint(point) {
  const place = document.getElementById("point");
  if (!point) {
    place.textContent = "Each dot is a plan that no other beats in everything. Point at one to see what it is.";
    return;
  }
  const picked = point.picks.length ? ` (${point.picks.join(", ")})` : "", not = point.fits ? "" : ", does not fit";
  place.textContent = `${duration(point.seconds)}, ${amount(point.required)}, ${point.loss}${not}${picked}: ${point.label}`;
}
