"use strict";
/* Draws the report's curves into its empty figures: plain SVG, no library, no network.
   Every chart of steps shares one crosshair (pointer, touch, or arrow keys) and one x axis. */

const curves = JSON.parse(document.getElementById("curves").textContent);
const view = { logX: false, byTime: false, at: null };
const charts = [];

/* ---- small tools ---- */

/** A new SVG element with attributes, appended to a parent. */
function draw(parent, name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}

const good = (v) => v !== null && Number.isFinite(v);

/** 0.00042 -> 4.2e-4, 1234567 -> 1.23M, 0.0123 -> 0.0123. */
function short(v) {
  if (!good(v)) return "–";
  const size = Math.abs(v);
  for (const [scale, letter] of [[1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= scale) return +(v / (letter === "k" ? 1e3 : scale)).toPrecision(3) + letter;
  }
  if (size > 0 && size < 1e-3) return v.toExponential(1).replace(".0e", "e").replace("-", "−");
  return String(+v.toPrecision(4));
}

/** Seconds as 45 s, 3:05 min, 2:10 h. */
function clock(s) {
  if (!good(s)) return "–";
  if (s < 60) return +s.toPrecision(3) + " s";
  s = Math.round(s);
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)} min` : `${Math.floor(s / 3600)}:${two((s % 3600) / 60)} h`;
}

/** Seconds of one part of a step. */
const brief = (s) => (!good(s) ? "–" : s < 1 ? short(s * 1e3) + " ms" : short(s) + " s");

/** A scale from [low, high] to [from, to] with round ticks; its inverse is `back`. */
function scale(low, high, from, to, log, about) {
  if (log) low = Math.max(low, 1e-300);
  if (!(high > low)) { high = log ? low * 2 : low + (Math.abs(low) || 1); }
  const f = log ? Math.log10 : (v) => v;
  const a = f(low), b = f(high);
  const place = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  place.back = (p) => { const v = a + ((p - from) / (to - from)) * (b - a); return log ? 10 ** v : v; };
  place.ticks = [];
  if (log && b - a > 0.7) {
    const steps = b - a > 2.2 ? [1] : b - a > 1.2 ? [1, 3] : [1, 2, 5];
    const jump = Math.ceil((b - a) / (about + 2));
    for (let d = Math.floor(a); d <= Math.ceil(b); d += jump) for (const m of steps) place.ticks.push(m * 10 ** d);
  } else {
    const rough = (high - low) / about, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * unit >= rough) * unit;
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) place.ticks.push(+(i * step).toPrecision(12));
  }
  place.ticks = place.ticks.filter((v) => v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9) + 1e-300);
  return place;
}

/** Lowest and highest of many lists. */
function extent(...lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) for (const v of list) if (good(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  return low > high ? [0, 1] : [low, high];
}

/** An SVG path through points; a gap starts a new piece. */
function path(xs, ys) {
  let d = "", pen = "M";
  for (let i = 0; i < xs.length; i++) {
    if (!good(ys[i]) || !good(xs[i])) { pen = "M"; continue; }
    d += pen + xs[i].toFixed(1) + " " + ys[i].toFixed(1);
    pen = "L";
  }
  return d;
}

/** Index of the last x at or before a value (0 when all are after). */
function indexAt(xs, value) {
  let low = 0, high = xs.length - 1;
  while (low < high) { const mid = (low + high + 1) >> 1; if (xs[mid] <= value) low = mid; else high = mid - 1; }
  return low;
}

const xs = (source) => (view.byTime ? source.elapsed : source.step);
const cut = (text, n) => (text.length > n ? "…" + text.slice(1 - n) : text);

/* ---- the frame that every chart has ---- */

/** Clear the plot, make an SVG of the figure's width with an x axis, and return what is needed to draw in it. */
function frame(figure, height, left, label) {
  const plot = figure.querySelector(".plot");
  const width = Math.max(Math.round(plot.clientWidth), 200);
  plot.replaceChildren();
  const svg = draw(plot, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": label });
  const box = { left, right: width - 8, top: 8, bottom: height - 24 };
  const all = xs(curves);
  const first = view.logX ? Math.max(all[0], view.byTime ? 1e-3 : 1) : 0;
  const x = scale(first, all[all.length - 1], box.left, box.right, view.logX, Math.max(2, (box.right - left) / 110));
  for (const tick of x.ticks) {
    const at = x(tick), anchor = at > box.right - 22 ? "end" : "middle";
    draw(svg, "line", { x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4, class: "tick" });
    draw(svg, "text", { x: at, y: height - 6, "text-anchor": anchor, class: "label" }, view.byTime ? clock(tick) : short(tick));
  }
  draw(svg, "line", { x1: left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" });
  return { figure, svg, box, x, width, height };
}

/** Horizontal grid lines with their values. */
function yAxis(f, y, format) {
  for (const tick of y.ticks) {
    draw(f.svg, "line", { x1: f.box.left, x2: f.box.right, y1: y(tick), y2: y(tick), class: "grid" });
    draw(f.svg, "text", { x: f.box.left - 6, y: y(tick) + 3.5, "text-anchor": "end", class: "label" }, format(tick));
  }
}

/** A group that shows nothing outside the axes. */
function clipped(f, name) {
  const id = "clip-" + name.replace(/\W/g, "-");
  const clip = draw(draw(f.svg, "defs", {}), "clipPath", { id });
  draw(clip, "rect", { x: f.box.left, y: f.box.top - 4, width: f.box.right - f.box.left, height: f.box.bottom - f.box.top + 5 });
  return draw(f.svg, "g", { "clip-path": `url(#${id})` });
}

/** Crosshair: pointer and arrow keys move it on every chart at once. `tell(i)` gives the words for its readout. */
function listen(f, tell) {
  const hair = draw(f.svg, "line", { y1: f.box.top, y2: f.box.bottom, class: "hair", visibility: "hidden" });
  const dots = draw(f.svg, "g", {});
  const readout = f.figure.querySelector(".readout");
  const last = curves.step.length - 1;
  f.show = () => {
    const i = view.at === null ? last : view.at;
    const at = f.x(Math.max(xs(curves)[i], view.logX ? 1e-3 : 0));
    hair.setAttribute("x1", at);
    hair.setAttribute("x2", at);
    hair.setAttribute("visibility", view.at === null ? "hidden" : "visible");
    dots.replaceChildren();
    const step = [["", `step ${curves.step[i].toLocaleString("en")} · ${clock(curves.elapsed[i])}`]];
    const words = [...(f.quiet ? [] : step), ...tell(i, view.at === null ? null : dots, at)];
    readout.replaceChildren(...words.map(([kind, text]) => {
      const span = document.createElement("span");
      if (kind) span.className = "key " + kind;
      span.textContent = text;
      return span;
    }));
  };
  const move = (event) => {
    const place = f.svg.getBoundingClientRect();
    const value = f.x.back(((event.clientX - place.left) / place.width) * f.width);
    const all = xs(curves), i = indexAt(all, value);
    setCrosshair(i < last && all[i + 1] - value < value - all[i] ? i + 1 : i);
  };
  f.svg.addEventListener("pointermove", move);
  f.svg.addEventListener("pointerdown", move);
  f.svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") setCrosshair(null); });
  f.svg.addEventListener("blur", () => setCrosshair(null));
  f.svg.addEventListener("keydown", (event) => {
    const now = view.at === null ? last : view.at, stride = Math.max(1, Math.round(last / 100));
    const to = { ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    setCrosshair(to === null ? null : Math.min(last, Math.max(0, to)));
  });
  f.show();
  return f;
}

let waiting = false;
function setCrosshair(i) {
  view.at = i;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; for (const c of charts) c.show(); });
}

/* ---- the kinds of chart ---- */

/** Lines over steps. spec: {name, height, logY, format, band: [low, high], line, key, points, marks, words}. */
function lines(figure, spec) {
  const end = spec.line[spec.line.length - 1];
  const label = `${spec.words} over ${curves.step.length} points, from ${spec.format(spec.line.find(good))} to ${spec.format(end)}. Arrow keys move the crosshair.`;
  const f = frame(figure, spec.height, 46, label);
  const all = xs(curves), late = spec.full || view.logX ? 0 : indexAt(all, 0.03 * all[all.length - 1]);
  let [low, high] = extent(spec.line.slice(late), spec.points ? spec.points.loss : []);
  if (spec.band) low = Math.min(low, extent(spec.band[0].slice(late))[0]);
  if (!spec.logY) { const pad = (high - low) * 0.06; high += pad; low = spec.zero ? 0 : low - pad; }
  const y = scale(low, high, f.box.bottom, f.box.top, spec.logY, spec.height > 200 ? 5 : 3);
  yAxis(f, y, spec.format);
  const g = clipped(f, spec.name), px = all.map((v) => f.x(Math.max(v, view.logX ? 1e-3 : 0))), py = (v) => (good(v) ? y(v) : null);
  if (spec.band) {
    const keep = px.map((_, i) => i).filter((i) => good(spec.band[0][i]) && good(spec.band[1][i]));
    const there = path(keep.map((i) => px[i]), keep.map((i) => y(spec.band[1][i])));
    const back = path(keep.map((i) => px[i]).reverse(), keep.map((i) => y(spec.band[0][i])).reverse());
    draw(g, "path", { d: there + back.replace("M", "L") + "Z", class: "band " + spec.key });
  }
  draw(g, "path", { d: path(px, spec.line.map(py)), class: "line " + spec.key });
  if (spec.points) {
    const vx = xs(spec.points).map((v) => f.x(v)), vy = spec.points.loss.map(py);
    draw(g, "path", { d: path(vx, vy), class: "line validation" });
    if (vx.length <= 80) vx.forEach((v, i) => good(vy[i]) && draw(g, "circle", { cx: v, cy: vy[i], r: 3, class: "dot validation" }));
  }
  if (spec.marks) {
    for (const [step, elapsed, kind] of curves.events) {
      const at = f.x(Math.max(view.byTime ? elapsed : step, view.logX ? 1e-3 : 0)), b = f.box.bottom;
      if (kind === "trouble" || kind === "resumed") draw(g, "line", { x1: at, x2: at, y1: f.box.top, y2: b, class: "event " + kind });
      const d = { trouble: `M${at} ${b - 9}l4.5 8h-9z`, resumed: `M${at} ${b - 9}l4.5 4.5l-4.5 4.5l-4.5 -4.5z` }[kind];
      draw(g, "path", { d: d || `M${at - 1.2} ${b - 7}h2.4v7h-2.4z`, class: "mark " + kind });
    }
  }
  f.quiet = !spec.marks; // the step is told once, above the loss
  return listen(f, (i, dots, at) => {
    const words = [[spec.key, `${spec.words.toLowerCase()} ${spec.format(spec.line[i])}`]];
    if (dots && good(spec.line[i])) draw(dots, "circle", { cx: at, cy: y(spec.line[i]), r: 3.5, class: "dot " + spec.key });
    if (spec.band && spec.marks) {
      const [from, to] = [spec.band[0][i], spec.band[1][i]].map(spec.format);
      words.push(["band " + spec.key, from === to ? `this step ${from}` : `these steps ${from} to ${to}`]);
    }
    if (spec.points && spec.points.step.length && spec.points.step[0] <= curves.step[i]) {
      words.push(["validation", `validation ${spec.format(spec.points.loss[indexAt(spec.points.step, curves.step[i])])}`]);
    }
    return words;
  });
}

/** Seconds a step, stacked by part. */
function stack(figure) {
  const names = Object.keys(curves.times).sort((a, b) => sum(curves.times[b]) - sum(curves.times[a]));
  const f = frame(figure, 230, 52, `Seconds a step by part: ${names.join(", ")}. Arrow keys move the crosshair.`);
  const totals = curves.step.map((_, i) => names.reduce((t, n) => t + (curves.times[n][i] || 0), 0));
  const sorted = totals.slice().sort((a, b) => a - b);
  const high = Math.min(sorted[sorted.length - 1], 2.5 * sorted[Math.floor(sorted.length * 0.5)]) * 1.06; // rare slow steps run off the top
  const y = scale(0, high, f.box.bottom, f.box.top, false, 4);
  yAxis(f, y, brief);
  const px = xs(curves).map((v) => f.x(Math.max(v, view.logX ? 1e-3 : 0))), g = clipped(f, "times");
  let base = totals.map(() => 0);
  for (const n of names) {
    const next = base.map((v, i) => v + (curves.times[n][i] || 0));
    const d = path(px, next.map(y)) + path(px.slice().reverse(), base.map(y).reverse()).replace("M", "L") + "Z";
    draw(g, "path", { d, class: "area part-" + n });
    base = next;
  }
  return listen(f, (i) => names.filter((n) => curves.times[n][i] > 0).map((n) => ["part-" + n, `${n} ${brief(curves.times[n][i])}`]));
}

const sum = (list) => list.reduce((a, b) => a + (b || 0), 0);

/** Colour of a share 0..1: embers, from the page's own background to bright (dark mode) or deep (light mode). */
function ember(t) {
  const stops = document.documentElement.classList.contains("dark")
    ? [[32, 31, 33], [92, 38, 30], [190, 78, 32], [246, 168, 72], [255, 240, 205]]
    : [[250, 243, 231], [250, 205, 140], [226, 124, 60], [158, 48, 40], [66, 16, 36]];
  const p = Math.min(Math.max(t, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(p), stops.length - 2);
  return stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * (p - i)));
}

/** Layers down, steps across, the value as colour (logarithmic unless it is a share). */
function heat(figure, name) {
  const { rows, values } = curves.layers.maps[name], share = name === "dead_frac", n = curves.layers.step.length;
  const small = figure.querySelector(".plot").clientWidth < 520, left = small ? 104 : 150;
  const cell = Math.min(18, Math.max(3, 480 / rows.length)), height = Math.round(rows.length * cell) + 32;
  const f = frame(figure, height, left, `Heat map of ${rows.length} layers at ${n} steps. Arrow keys move the crosshair.`);
  const flat = values.flat().filter((v) => good(v) && (share || v > 0)).sort((a, b) => a - b);
  const low = share ? 0 : flat[Math.floor(flat.length * 0.01)], high = Math.max(flat[Math.floor((flat.length - 1) * 0.99)], share ? 0.05 : low * 1.01);
  const shade = share ? scale(low, high, 0, 1, false, 3) : scale(low, high, 0, 1, true, 3);
  const all = xs(curves.layers), edges = all.map((v, i) => f.x(Math.max(i ? (v + all[i - 1]) / 2 : 0, view.logX ? xs(curves)[0] : 0)));
  edges.push(f.box.right);
  const canvas = document.createElement("canvas"), ratio = 2, w = Math.round((f.box.right - left) * ratio);
  canvas.width = w;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  values.forEach((row, r) => row.forEach((v, i) => {
    if (!good(v)) return;
    context.fillStyle = `rgb(${ember(share || v > 0 ? shade(v) : 0)})`;
    const from = Math.round((edges[i] - left) * ratio);
    context.fillRect(from, r, Math.max(1, Math.round((edges[i + 1] - left) * ratio) - from), 1);
  }));
  draw(f.svg, "image", { href: canvas.toDataURL(), x: left, y: f.box.top, width: w / ratio, height: rows.length * cell, preserveAspectRatio: "none", class: "heat" });
  const every = Math.ceil(11 / cell);
  rows.forEach((row, r) => r % every === 0 && draw(f.svg, "text", { x: left - 6, y: f.box.top + (r + 0.5) * cell + 3.5, "text-anchor": "end", class: "label mono" }, small ? cut(row.replace(/^blocks\./, ""), 15) : cut(row, 22)));
  const format = share ? (v) => short(v * 100) + "%" : short;
  let under = null;
  f.svg.addEventListener("pointermove", (e) => { const b = f.svg.getBoundingClientRect(); under = Math.floor((((e.clientY - b.top) / b.height) * f.height - f.box.top) / cell); });
  return listen(f, (i) => {
    const k = indexAt(curves.layers.step, curves.step[i]);
    const order = rows.map((_, r) => r).filter((r) => good(values[r][k])).sort((a, b) => values[b][k] - values[a][k]);
    const told = under !== null && view.at !== null && rows[under] !== undefined ? [under] : [order[0], order[order.length - 1]];
    const words = told.filter((r) => r !== undefined).map((r, j) => ["", `${told.length > 1 ? (j ? "lowest " : "highest ") : ""}${rows[r]} ${format(values[r][k])}`]);
    return [...words, ["ramp", `${format(low)} to ${format(high)}`]];
  });
}

/* ---- what is drawn where ---- */

const drawn = {
  loss: (el) => lines(el, { name: "loss", words: "Train", height: el.clientWidth < 520 ? 260 : 380, line: curves.loss, band: [curves.loss_low, curves.loss_high], key: "train", points: curves.validation, marks: true, format: short }),
  lr: (el) => lines(el, { name: "lr", words: "Rate", height: 150, line: curves.lr, key: "rate", format: short, full: true, zero: true }),
  norm: (el) => lines(el, { name: "norm", words: "Norm", height: 150, line: curves.norm, band: [curves.norm_low, curves.norm_high], key: "train", logY: true, format: short, full: true }),
  per_s: (el) => lines(el, { name: "per_s", words: "Speed", height: 150, line: curves.per_s, key: "speed", format: short, full: true, zero: true }),
  times: stack,
};

/** Draw every chart for the current width, axis and colours. */
function redraw() {
  charts.length = 0;
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const [kind, name] = figure.dataset.chart.split(":");
    charts.push(kind === "map" ? heat(figure, name) : drawn[kind](figure));
  }
}

/** A button that is on or off. */
function toggle(id, act) {
  const button = document.getElementById(id);
  if (button) button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    act(on);
  });
}

if (curves) {
  toggle("log-x", (on) => { view.logX = on; redraw(); });
  toggle("by-time", (on) => { view.byTime = on; redraw(); });
  let width = 0;
  new ResizeObserver(() => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; redraw(); } }).observe(document.body);
}

/* Dark or light: the system's choice, until the button says otherwise. */
const system = matchMedia("(prefers-color-scheme: dark)"), theme = document.getElementById("theme");
function paint(dark) {
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("light", !dark);
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
  if (curves && charts.length) redraw();
}
theme.hidden = false;
theme.addEventListener("click", () => paint(!document.documentElement.classList.contains("dark")));
system.addEventListener("change", (event) => paint(event.matches));
paint(system.matches);

/* Settings: find by name or meaning, or only what the recipe gave. */
const find = document.getElementById("find");
if (find) {
  let onlyGiven = false;
  const rows = [...document.querySelectorAll(".settings .group > dl > div")];
  const sift = () => {
    const wanted = find.value.trim().toLowerCase();
    let n = 0;
    for (const row of rows) {
      row.hidden = (onlyGiven && !row.classList.contains("given")) || !(row.dataset.name + row.textContent.toLowerCase()).includes(wanted);
      n += !row.hidden;
    }
    for (const group of document.querySelectorAll(".settings .group")) group.hidden = !group.querySelector("dl > div:not([hidden])");
    document.getElementById("found").textContent = wanted || onlyGiven ? `${n} of ${rows.length}` : "";
  };
  find.addEventListener("input", sift);
  toggle("only-given", (on) => { onlyGiven = on; sift(); });
}

/* On paper everything is open, and light. */
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
