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
  const times = sorted.map((point) => point.seconds), wide = times[times.length - 1] > 3 * times[0];
  legend(document.getElementById("losses"), shown.map((loss) => [loss, named(loss), ""]), true);
  let nearest = null;
  const u = new uPlot({
    width: 800, height: 330, legend: { show: false }, padding: [18, 24, 0, 0],
    cursor: { drag: { x: true, y: true }, points: { show: false }, x: false, y: false },
    scales: {
      x: { time: false, distr: wide ? 3 : 1, range: (u, min, max) => (wide ? [min * 0.93, max * 1.08] : around(min, max)) },
      y: { range: (u, min, max) => (u.zoomed ? [min, max] : [0, Math.max(most, line ? limit : 0) * 1.12]) },
    },
    axes: [
      timeAxis(wide ? { label: "time per call, logarithmic", ...ROUND } : { label: "time per call" }),
      gibAxis({ label: "VRAM, GiB" }),
    ],
    series: [{}, ...series],
    hooks: {
      draw: [(u) => { drawAbove(u, limit); if (line) drawLimit(u, limit, true, { around: false }); drawNames(u, sorted); }],
      setCursor: [(u) => {
        const found = closest(u, sorted);
        if (found !== nearest) tellPoint(nearest = found, sorted);
      }],
    },
  }, [times, ...series.map((one) => column(one.keep))], place);
  tellPoint(null, sorted);
  return u;
}

/* A little more than what is between two seconds. */
function around(min, max) {
  const beside = 0.05 * (max - min) + 0.01;
  return [Math.max(min - beside, 0), max + beside];
}

/* Round times on a logarithmic axis. */
function rounds(u, n, min, max) {
  const unit = unitOf(min, max), found = [];
  for (let ten = 10 ** Math.floor(Math.log10(min / unit)); ten * unit <= max; ten *= 10) {
    found.push(...[1, 1.5, 2, 3, 4, 5, 6, 8].map((step) => step * ten * unit).filter((at) => min <= at && at <= max));
  }
  return found;
}

const ROUND = { splits: rounds, filter: (u, at) => at };

/* What does not fit is above the limit, and paler. */
function drawAbove(u, limit) {
  onCanvas(u, (ctx, bbox) => {
    const y = Math.max(u.valToPos(limit, "y", true) - pixels(u, 7), bbox.top); // half a dot above the limit
    ctx.globalAlpha = 0.6;
    ctx.fillStyle = theme.colour("ground");
    ctx.fillRect(bbox.left, bbox.top, bbox.width, y - bbox.top);
  });
}

/* The names of picks beside their dots, where they cover neither a dot of a pick nor another name. */
function drawNames(u, points) {
  const picks = points.filter((point) => point.picks.length), high = pixels(u, 15), dot = pixels(u, 9);
  const places = picks.map((point) => [u.valToPos(point.seconds, "x", true), u.valToPos(point.required, "y", true)]);
  const taken = places.map(([x, y]) => [x - dot, y - dot, 2 * dot, 2 * dot]);
  const apart = ([a, b, c, d]) => ([l, t, w, h]) => a + c <= l || l + w <= a || b + d <= t || t + h <= b;
  onCanvas(u, (ctx, bbox) => {
    ctx.font = withFont(u, BOLD);
    ctx.textBaseline = "middle";
    ctx.fillStyle = theme.colour("ink");
    ctx.strokeStyle = theme.colour("ground");
    ctx.lineWidth = pixels(u, 4);
    ctx.lineJoin = "round";
    picks.forEach((point, n) => {
      const [x, y] = places[n], text = point.picks.join(", "), width = ctx.measureText(text).width;
      const boxes = [0, -17, 17, -30, 30, -44, 44].flatMap((up) => [1, -1].map((side) =>
        [x + side * dot * 1.2 - (side < 0 ? width : 0), y + pixels(u, up) - high / 2, width, high]));
      const inside = ([left, top]) => left >= bbox.left && left + width <= bbox.left + bbox.width && top >= bbox.top;
      const box = boxes.find((one) => inside(one) && taken.every(apart(one))) ?? boxes[0];
      taken.push(box);
      ctx.strokeText(text, box[0], box[1] + high / 2);
      ctx.fillText(text, box[0], box[1] + high / 2);
    });
  });
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

function tellPoint(point, points) {
  const place = document.getElementById("point");
  if (!point) {
    const pale = points.some((one) => !one.fits) ? "; the pale ones do not fit" : "";
    place.textContent = `Each dot is a plan that no other beats in everything${pale}. Point at one to see what it is.`;
    return;
  }
  const picked = point.picks.length ? ` (${point.picks.join(", ")})` : "", not = point.fits ? "" : ", does not fit";
  place.textContent = `${duration(point.seconds)}, ${amount(point.required)}, ${point.loss}${not}${picked}: ${point.label}`;
}
