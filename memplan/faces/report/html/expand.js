"use strict";
// The timeline as it was sent, equal calls once, made into one row for each moment.

/* What is stacked, from the bottom up: [key, words, colour]. */
function bandsOf(plan) {
  const weights = plan.weights.map(([name, n]) => [`w:${name}`, `weights of ${name}`, `w${Math.min(n, 5)}`]);
  return [
    ["context", "device context", "context"], ...weights, ["workspace", "workspace", "workspace"],
    ["unused", "unused in segments", "unused"], ["copies", "transient copies", "copies"],
    ["activations", "activations", "activations"],
  ];
}

/* {bands, t: seconds at which each row begins, rows: bytes for each band, held: their sums, at: what goes on, end}. */
function expanded(plan) {
  const bands = bandsOf(plan), place = new Map(bands.map(([key], n) => [key, n]));
  const found = { bands, t: [], rows: [], held: [], host: [], at: [], end: 0 };

  function add(second, stretch, point, run) {
    const row = new Array(bands.length).fill(0), [, weights, copies, activations] = point;
    for (const [name, bytes] of Object.entries(stretch.others)) row[place.get(`w:${name}`)] += bytes;
    if (weights) row[place.get(`w:${stretch.component}`)] += weights;
    for (const key of ["context", "workspace", "unused"]) row[place.get(key)] = stretch[key];
    row[place.get("copies")] = copies;
    row[place.get("activations")] = activations + stretch.base;
    found.t.push(second);
    found.rows.push(row);
    found.held.push(row.reduce((sum, bytes) => sum + bytes, 0));
    found.host.push(stretch.host);
    found.at.push({ stretch, run, place: point[4] });
  }

  for (const stretch of plan.stretches) {
    const { points } = plan.courses[stretch.course];
    const start = stretch.begin + stretch.moving;
    if (stretch.moving) add(stretch.begin, stretch, [0, points[0][1], 0, 0, -1], -1);
    for (let run = 0; run < stretch.repeat; run++) {
      let begin = 0;
      for (const point of points) {
        add(start + run * stretch.seconds + begin, stretch, point, run);
        begin = point[0];
      }
    }
    found.end = start + stretch.repeat * stretch.seconds;
  }
  found.peak = found.held.reduce((best, bytes, n) => (bytes > found.held[best] ? n : best), 0);
  return found;
}

/* The phases in order: {name, begin, end, one: [begin, end] of one of its repeated calls, or null}. */
function phasesOf(plan) {
  const found = [];
  for (const stretch of plan.stretches) {
    const start = stretch.begin + stretch.moving, end = start + stretch.repeat * stretch.seconds;
    let last = found[found.length - 1];
    if (!last || last.name !== stretch.phase) found.push(last = { name: stretch.phase, begin: stretch.begin, longest: 0 });
    last.end = end;
    last.calls = (last.calls || 0) + (stretch.component ? stretch.repeat : 0);
    if (stretch.component && stretch.repeat && stretch.seconds > last.longest) {
      const run = Math.floor(stretch.repeat / 2);
      last.longest = stretch.seconds;
      last.one = [start + run * stretch.seconds, start + (run + 1) * stretch.seconds];
    }
  }
  return found;
}

/* Shares of the lanes: [begin, end, share] for slices of calls in which the lane is busy, equal neighbours in one. */
function busy(plan, lane) {
  const found = [];
  function add(begin, end, share) {
    const last = found[found.length - 1];
    if (last && last[2] === share && begin - last[1] < 1e-6 * (end - begin)) last[1] = end;
    else if (share) found.push([begin, end, share]);
  }
  for (const stretch of plan.stretches) {
    const shares = plan.courses[stretch.course][lane], width = stretch.seconds / shares.length;
    const start = stretch.begin + stretch.moving;
    if (stretch.moving && lane === "link") add(stretch.begin, start, 1);
    for (let run = 0; run < stretch.repeat; run++) {
      const from = start + run * stretch.seconds;
      shares.forEach((share, n) => add(from + n * width, from + (n + 1) * width, share));
    }
  }
  return found;
}
