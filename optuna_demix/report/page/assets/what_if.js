// The what-if panel: weights that sum to 1, and what is predicted of them.

const MINUS = "\u2212";
const LOCK =
  '<svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path fill="none" ' +
  'stroke="currentColor" stroke-width="1.6" d="M3.5 7.5h9v6h-9z"/><path class="shackle" ' +
  'fill="none" stroke="currentColor" stroke-width="1.6" d="M5.5 7.5v-2.500a2.500 2.500 0 0 1 5 0v2.500"/></svg>';

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A name that may be broken at its separators, and nowhere else.
function breakable(name) {
  const parts = name.split(/(?<=[/_.,:-])(?=\w)/);
  return parts.flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

function score(value) {
  const text = Math.abs(value) < 10 ? value.toFixed(4) : value.toPrecision(5);
  return text.replace("-", MINUS);
}
const signed = (value) =>
  Math.abs(value) < 5e-5 ? "0" : (value < 0 ? MINUS : "+") + score(Math.abs(value));
const percent = (value, digits = 1) => (100 * value).toFixed(digits).replace(/^-?0\.?0*$/, "0");

// Weight i set to a value: unlocked others change in proportion; returns the new weights.
function moved(weights, locked, i, value) {
  const free = weights.map((_, k) => k !== i && !locked[k]);
  const held = weights.reduce((sum, w, k) => sum + (k !== i && locked[k] ? w : 0), 0);
  const room = Math.max(0, 1 - held);
  if (!free.some(Boolean)) return weights.map((w, k) => (k === i ? room : w));
  const target = Math.min(Math.max(value, 0), room);
  const total = weights.reduce((sum, w, k) => sum + (free[k] ? w : 0), 0);
  const count = free.filter(Boolean).length;
  return weights.map((w, k) => {
    if (k === i) return target;
    if (!free[k]) return w;
    return total > 1e-12 ? (w / total) * (room - target) : (room - target) / count;
  });
}

// The constraints that weights break, in words.
function brokenLimits(model, weights) {
  const found = [];
  for (const { row, bound, text } of model.constraints) {
    const value = row.reduce((sum, a, k) => sum + a * weights[k], 0);
    if (value > bound + 1e-9 && !found.some((one) => one.startsWith(text)))
      found.push(`${text} (${Number(Math.abs(value).toPrecision(4))} given)`);
  }
  const small = model.components.filter(
    (_, k) => weights[k] > 1e-9 && weights[k] < model.minWeight - 1e-9,
  );
  if (small.length) found.push(`least weight ${model.minWeight}: ${small.join(", ")}`);
  return found;
}

function dataShares(model, weights) {
  return model.datasets.map((_, d) =>
    weights.reduce((sum, w, k) => sum + w * model.composition[k][d], 0),
  );
}

// The mixture as text, to be pasted into a configuration.
function asPlain(model, weights) {
  const named = (names, values) =>
    Object.fromEntries(names.map((name, i) => [name, Number(values[i].toFixed(6))]));
  return {
    merge_weights: named(model.components, weights),
    data_shares: named(model.datasets, dataShares(model, weights)),
  };
}

function asYaml(plain) {
  const key = (name) => (/^[A-Za-z_][\w./-]*$/.test(name) && !/^(y|n|yes|no|on|off|true|false|null)$/i.test(name) ? name : JSON.stringify(name));
  return Object.entries(plain)
    .map(([part, values]) =>
      [`${part}:`, ...Object.entries(values).map(([k, v]) => `  ${key(k)}: ${v}`)].join("\n"),
    )
    .join("\n")
    .concat("\n");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function whatIf(content, predict) {
  const model = content.whatIf;
  const K = model.components.length;
  const find = (id) => document.getElementById(id);
  const merit = (value) => {
    if (!content.share) return score(value);
    return Math.min(Math.max(value, 0), 1).toFixed(3);
  };
  const known = Object.fromEntries(
    Object.entries(model.presets).map(([name, row]) => [name, predict(row, content.z90)]),
  );
  let row = [...model.presets.recommended];
  let tail = "recommended";
  const locked = new Array(K).fill(false);
  const color = (name) => `swatch c${content.colors[name] ?? "x"}`;

  // Weights
  const rows = model.components.map((name, k) => {
    const slider = element("input", {
      type: "range", min: 0, max: 100, step: 0.1, id: `weight-${k}`, "aria-label": `Weight of ${name}`,
    });
    const number = element("input", {
      type: "number", min: 0, max: 100, step: 0.1, "aria-label": `Weight of ${name} in percent`,
    });
    const lock = element("button", {
      type: "button", class: "lock", "aria-pressed": "false", "aria-label": `Lock ${name}`,
      title: "Keep this weight",
    });
    lock.innerHTML = LOCK;
    const label = element("label", { for: `weight-${k}`, class: "name", title: name },
      element("span", { class: color(name) }), element("span", { text: name }));
    const item = element("li", {}, label, slider, number, lock);
    const set = (value) => {
      if (!Number.isFinite(value)) return;
      row.splice(0, K, ...moved(row.slice(0, K), locked, k, value / 100));
      show();
    };
    slider.addEventListener("input", () => set(slider.valueAsNumber));
    number.addEventListener("change", () => set(number.valueAsNumber));
    lock.addEventListener("click", () => {
      locked[k] = !locked[k];
      lock.setAttribute("aria-pressed", String(locked[k]));
    });
    return { name, item, slider, number };
  });
  const list = find("sliders");
  const arrange = () => {
    const order = rows.map((_, k) => k);
    if (find("largest").checked) order.sort((a, b) => row[b] - row[a]);
    list.replaceChildren(...order.map((k) => rows[k].item));
  };
  const filter = () => {
    const wanted = find("find").value.trim().toLowerCase();
    for (const { name, item } of rows) item.hidden = !name.toLowerCase().includes(wanted);
    find("none-found").hidden = rows.some(({ item }) => !item.hidden);
  };
  find("find").addEventListener("input", filter);
  find("largest").addEventListener("change", arrange);

  // Mixtures to start from
  for (const [name, preset] of Object.entries(model.presets)) {
    const button = element("button", { type: "button", text: content.labels[name] ?? name, "data-preset": name });
    button.addEventListener("click", () => {
      row = [...preset];
      tail = name;
      show();
      if (find("largest").checked) arrange();
    });
    find("presets").append(button);
  }

  // What is predicted
  const body = find("predicted").tBodies[0];
  const cells = [...model.objectives, "Composite"].map((name) => {
    const parts = [0, 1, 2].map(() => element("td"));
    const line = element("tr", name === "Composite" ? { class: "total" } : {},
      element("th", { scope: "row", text: name }), ...parts);
    body.append(line);
    return parts;
  });
  const hasEpochs = model.epochs.some((epochs) => epochs !== null);
  const heads = ["Dataset", "", "Data share", ...(hasEpochs ? ["Epochs"] : [])];
  find("shares").tHead.append(
    element("tr", {}, ...heads.map((text) => element(text ? "th" : "td", text ? { scope: "col", text } : {}))),
  );
  const shareRows = model.datasets.map((name) => {
    const bar = element("span", { class: color(name).split(" ")[1] });
    const [share, epochs] = [element("td"), hasEpochs ? element("td") : null];
    const parts = [element("td", { class: "meter" }, bar), share, ...(epochs ? [epochs] : [])];
    const head = element("th", { scope: "row" }, element("span", { class: color(name) }), ...breakable(name));
    find("shares").tBodies[0].append(element("tr", {}, head, ...parts));
    return { bar, share, epochs };
  });
  find("shares-part").hidden = model.plain && !hasEpochs;
  find("approximation").textContent = model.approximation;
  find("approximation").hidden = !model.approximation;

  const difference = (cell, value, better) => {
    cell.className = Math.abs(value) < 5e-5 ? "muted" : better ? "up" : "down";
    return signed(value);
  };
  function show() {
    const weights = row.slice(0, K);
    rows.forEach(({ slider, number }, k) => {
      slider.value = 100 * weights[k];
      slider.setAttribute("aria-valuetext", `${percent(weights[k])} percent`);
      slider.style.setProperty("--at", `${100 * weights[k]}%`);
      if (document.activeElement !== number || Math.abs(number.valueAsNumber - 100 * weights[k]) > 0.05)
        number.value = (100 * weights[k]).toFixed(1);
    });
    const said = predict(row, content.z90);
    model.objectives.forEach((_, j) => {
      const [value, prior, recommended] = cells[j];
      value.replaceChildren(score(said.mean[j]),
        element("small", { text: `±${score(content.z90 * said.std[j])}` }));
      for (const [cell, name] of [[prior, "prior"], [recommended, "recommended"]]) {
        const gain = said.mean[j] - known[name].mean[j];
        cell.textContent = difference(cell, gain, gain * model.signs[j] > 0);
      }
    });
    const [value, prior, recommended] = cells[model.objectives.length];
    value.replaceChildren(merit(said.composite),
      element("small", { text: `${merit(said.low)}–${merit(said.high)}` }));
    for (const [cell, name] of [[prior, "prior"], [recommended, "recommended"]]) {
      const gain = Number(merit(said.composite).replace(MINUS, "-")) - Number(merit(known[name].composite).replace(MINUS, "-"));
      cell.className = Math.abs(gain) < 5e-4 ? "muted" : gain > 0 ? "up" : "down";
      cell.textContent = content.share ? (gain ? (gain < 0 ? MINUS : "+") + Math.abs(gain).toFixed(3) : "0") : signed(gain);
    }
    dataShares(model, weights).forEach((share, d) => {
      const { bar, share: cell, epochs } = shareRows[d];
      cell.textContent = percent(share);
      bar.style.setProperty("--part", `${100 * share}%`);
      if (epochs) epochs.textContent = model.epochs[d] === null ? "–" : (share * model.epochs[d]).toFixed(2);
    });
    const broken = brokenLimits(model, weights);
    const limits = find("limits");
    if (limits.dataset.shown !== JSON.stringify(broken)) {
      limits.dataset.shown = JSON.stringify(broken);
      limits.className = broken.length ? "broken" : "kept";
      limits.replaceChildren(broken.length
        ? element("div", {}, element("strong", { text: broken.length > 1 ? "These constraints are broken:" : "This constraint is broken:" }),
            element("ul", {}, ...broken.map((text) => element("li", { text }))))
        : element("span", { text: "All constraints are kept." }));
    }
    for (const button of find("presets").children) {
      const preset = model.presets[button.dataset.preset];
      button.setAttribute("aria-pressed", String(preset.every((v, k) => Math.abs(v - row[k]) < 1e-9)));
    }
    const params = content.params?.[tail];
    find("params").hidden = !params;
    find("params").textContent = params ? `Other parameters: ${params}` : "";
  }

  for (const [id, write] of [["copy-yaml", asYaml], ["copy-json", (p) => JSON.stringify(p, null, 2) + "\n"]]) {
    find(id).addEventListener("click", async () => {
      const done = await copy(write(asPlain(model, row.slice(0, K))));
      find("copied").textContent = done ? "Copied." : "The browser does not allow it.";
    });
  }
  if (K > 12) find("largest").checked = true;
  arrange();
  show();
  document.querySelector("#what-if .panel").hidden = false;
  return {
    get weights() { return row.slice(0, K); },
    text: (write) => write(asPlain(model, row.slice(0, K))),
  };
}
