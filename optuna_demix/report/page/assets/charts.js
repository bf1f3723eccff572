// Plots as SVG, drawn anew whenever their card has another width. Colors come from the style.

const SVG = "http://www.w3.org/2000/svg";
const FONT = 12;

function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const write = (text, x, y, attributes = {}) =>
  shape("text", { x, y, ...attributes }, document.createTextNode(text));
const titled = (node, text) => {
  const title = shape("title");
  title.textContent = text;
  node.append(title);
  return node;
};

// About `count` round numbers from low to high.
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((value) => ({ value, text: value.toFixed(digits).replace("-", "\u2212") }));
}

function range(values, margin = 0.05) {
  const finite = values.filter((v) => v !== null && Number.isFinite(v));
  if (!finite.length) return [0, 1];
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const pad = (high - low || Math.abs(high) || 1) * margin;
  return [low - pad, high + pad];
}

const textWidth = (text) => text.length * FONT * 0.56;

// A frame with axes: returns where to draw and the scales.
function frame(svg, box, x, y, { xTitle, yTitle } = {}) {
  const yTicks = ticks(...y, Math.max(2, Math.min(6, Math.floor(box.height / 36))));
  const left = box.x + Math.max(...yTicks.map((t) => textWidth(t.text))) + 10 + (yTitle ? 18 : 0);
  const right = box.x + box.width - 6;
  const top = box.y + 8;
  const bottom = box.y + box.height - (xTitle ? 38 : 22);
  const widest = Math.max(...ticks(...x, 4).map((t) => textWidth(t.text)));
  const xTicks = ticks(...x, Math.max(2, Math.min(8, Math.floor((right - left) / (widest + 24)))));
  const at = {
    x: (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left),
    y: (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top),
    left, right, top, bottom,
  };
  for (const { value, text } of yTicks) {
    svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: at.y(value), y2: at.y(value) }));
    svg.append(write(text, left - 6, at.y(value) + 4, { class: "tick", "text-anchor": "end" }));
  }
  for (const { value, text } of xTicks) {
    const half = textWidth(text) / 2;
    const place = Math.min(Math.max(at.x(value), left + half - 4), box.x + box.width - half);
    svg.append(shape("line", { class: "grid", x1: at.x(value), x2: at.x(value), y1: top, y2: bottom }));
    svg.append(write(text, place, bottom + 16, { class: "tick", "text-anchor": "middle" }));
  }
  svg.append(shape("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  if (xTitle) svg.append(write(xTitle, (left + right) / 2, bottom + 34, { class: "label", "text-anchor": "middle" }));
  if (yTitle) {
    const middle = (top + bottom) / 2;
    svg.append(write(yTitle, 0, 0, { class: "label", "text-anchor": "middle",
      transform: `translate(${box.x + 12} ${middle}) rotate(-90)` }));
  }
  return at;
}

function legend(figure, entries) {
  const list = element("ul", { class: "legend" });
  for (const [kind, text] of entries) {
    const mark = shape("svg", { viewBox: "0 0 24 12", width: 24, height: 12, "aria-hidden": "true" });
    mark.append(MARKS[kind](12, 6));
    list.append(element("li", {}, mark, text));
  }
  figure.append(list);
}

const dot = (kind, radius = 3) => (x, y) => shape("circle", { class: kind, cx: x, cy: y, r: radius });
const dash = (kind) => (x, y) => shape("line", { class: kind, x1: x - 11, x2: x + 11, y1: y, y2: y });
const MARKS = {
  trial: dot("trial"),
  good: dot("good"),
  best: dash("best"),
  recommended: dash("level recommended"),
  prior: dash("level prior"),
  diagonal: dash("diagonal"),
  interval: dash("interval"),
  star: (x, y) => shape("path", { class: "star", d: `M${x} ${y - 6}l5 6l-5 6l-5 -6z` }),
  tick: (x, y) => shape("line", { class: "mark-prior", x1: x, x2: x, y1: y - 6, y2: y + 6 }),
};

function convergence(figure, chart, width) {
  const height = Math.round(Math.max(240, Math.min(chart.height, width * 0.85)));
  const svg = canvas(figure, width, height);
  const levels = chart.levels.map((level) => level.value);
  let y = range([...chart.values, ...chart.best, ...levels]);
  if (chart.clip) y = [Math.max(y[0], 0), Math.min(y[1], 1)];
  const last = Math.max(...chart.bestAt, 1);
  const at = frame(svg, { x: 0, y: 0, width, height }, [-0.02 * last, 1.02 * last], y,
    { xTitle: "trial", yTitle: textWidth(chart.y) < height - 50 ? chart.y : "composite" });
  const inside = (v) => Math.min(Math.max(v, y[0]), y[1]);
  chart.values.forEach((value, i) => {
    if (value === null) return;
    const point = dot("trial")(at.x(chart.numbers[i]), at.y(inside(value)));
    svg.append(titled(point, `trial ${chart.numbers[i]}: composite ${inside(value).toFixed(3)}`));
  });
  for (const { value, kind, name } of chart.levels)
    svg.append(titled(shape("line", { class: `level ${kind}`, x1: at.left, x2: at.right, y1: at.y(inside(value)), y2: at.y(inside(value)) }),
      `${name}: ${inside(value).toFixed(3)}`));
  let path = "";
  chart.best.forEach((value, i) => {
    const [px, py] = [at.x(chart.bestAt[i]), at.y(inside(value))];
    path += i ? `H${px}V${py}` : `M${px} ${py}`;
  });
  svg.append(shape("path", { class: "best", d: path }));
  legend(figure, [["trial", "trial"], ["best", "best so far"], ["recommended", "recommended, predicted"], ["prior", "prior, predicted"]]);
}

function weights(figure, chart, width) {
  const named = Math.min(Math.max(...chart.names.map(textWidth)) + 26, 0.42 * width);
  const [step, top] = [20, 22];
  const height = top + step * chart.names.length + 24;
  const svg = canvas(figure, width, height);
  const high = Math.max(...chart.weights.flat(), ...chart.recommended, ...chart.prior, 0.01);
  const end = Math.min(1, high * 1.03);
  const [left, right] = [named + 4, width - 12];
  const x = (v) => left + (v / end) * (right - left);
  const bottom = top + step * chart.names.length;
  const shown = ticks(0, 100 * end, Math.max(2, Math.min(6, Math.floor((right - left) / 60))));
  for (const { value, text } of shown) {
    svg.append(shape("line", { class: "grid", x1: x(value / 100), x2: x(value / 100), y1: top - 4, y2: bottom }));
    svg.append(write(`${text} %`, Math.min(x(value / 100), width - textWidth(text) / 2 - 10), bottom + 16, { class: "tick", "text-anchor": "middle" }));
  }
  chart.names.forEach((name, k) => {
    const y = top + step * (k + 0.5);
    svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
    svg.append(shape("rect", { class: `chip c${chart.colors[k]}`, x: 0, y: y - 5, width: 10, height: 10, rx: 2 }));
    const most = Math.floor((named - 20) / (FONT * 0.56));
    const label = write(name.length > most ? `${name.slice(0, most - 1)}…` : name, 16, y + 4, { class: "label" });
    svg.append(titled(label, name));
    chart.weights.forEach((row, i) => {
      const kind = chart.good[i] ? "good" : "trial";
      const shift = ((i * 7919) % 11) - 5;
      svg.append(titled(dot(kind, 2.2)(x(row[k]), y + shift), `${name}, trial ${chart.numbers[i]}: ${percent(row[k])} %`));
    });
    svg.append(titled(MARKS.tick(x(chart.prior[k]), y), `${name}, prior: ${percent(chart.prior[k])} %`));
    svg.append(titled(MARKS.star(x(chart.recommended[k]), y), `${name}, recommended: ${percent(chart.recommended[k])} %`));
  });
  legend(figure, [["good", "best quarter of the trials"], ["trial", "other trials"], ["tick", "prior"], ["star", "recommended"]]);
}

function panels(figure, chart, width) {
  const n = chart.panels.length;
  const columns = Math.max(1, Math.min(n, Math.floor(width / 220), n === 4 ? 2 : 3));
  const wide = Math.min(width / columns, 560);
  const tall = Math.min(320, Math.max(220, wide * 0.85));
  const lines = Math.ceil(n / columns);
  const svg = canvas(figure, width, lines * tall);
  chart.panels.forEach((panel, i) => {
    const box = { x: (i % columns) * wide, y: Math.floor(i / columns) * tall, width: wide, height: tall };
    const most = Math.floor((wide - 8) / (FONT * 0.6));
    const name = panel.name.length > most ? `${panel.name.slice(0, most - 1)}…` : panel.name;
    svg.append(titled(write(name, box.x + 6, box.y + 16, { class: "panel-title" }), panel.name));
    box.y += 20;
    box.height -= 26;
    const halves = panel.halves ?? [];
    const kept = panel.x.map((v, k) => v !== null && panel.y[k] !== null);
    const xs = panel.x.filter((_, k) => kept[k]);
    const ys = panel.y.filter((_, k) => kept[k]);
    const x = range(chart.diagonal ? [...xs, ...ys] : xs);
    const y = chart.diagonal ? x : range(ys);
    const at = frame(svg, box, x, y, { xTitle: chart.x, yTitle: i % columns ? "" : chart.y });
    if (chart.diagonal)
      svg.append(shape("line", { class: "diagonal", x1: at.x(x[0]), y1: at.y(y[0]), x2: at.x(x[1]), y2: at.y(y[1]) }));
    panel.x.forEach((v, k) => {
      if (!kept[k]) return;
      const clip = (value) => Math.min(Math.max(value, at.left), at.right);
      const half = halves[k];
      if (half)
        svg.append(shape("line", { class: "interval", x1: clip(at.x(v - half)), x2: clip(at.x(v + half)), y1: at.y(panel.y[k]), y2: at.y(panel.y[k]) }));
    });
    panel.x.forEach((v, k) => {
      if (!kept[k]) return;
      const said = `trial ${chart.numbers[k]}: ${chart.x} ${score(v)}, ${chart.y} ${score(panel.y[k])}`;
      svg.append(titled(dot("good", 2.5)(at.x(v), at.y(panel.y[k])), said));
    });
  });
  legend(figure, [["good", "trial"], ...(chart.diagonal ? [["interval", "90 % interval"], ["diagonal", "as predicted"]] : [])]);
}

function canvas(figure, width, height) {
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  figure.replaceChildren(svg);
  return svg;
}

const DRAWN = { convergence, weights, predictions: panels, proxies: panels };

function drawnAtItsWidth(figure, chart) {
  let drawn = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width < 1 || width === drawn) return;
    drawn = width;
    DRAWN[figure.dataset.chart](figure, chart, width);
  }).observe(figure);
}
