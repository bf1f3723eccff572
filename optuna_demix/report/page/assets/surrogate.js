// Predicts as optuna_demix.surrogate does, from its description. A regressor becomes a function of
// a row x (d) and its standardized prior mean u that returns [mean, variance], in standard units;
// the variance is NaN where the description holds none.

function readArrays(stored) {
  const kinds = { f8: Float64Array, f4: Float32Array, i4: Int32Array };
  return stored.map(({ type, data }) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    return new kinds[type](bytes.buffer);
  });
}

function withArrays(node, arrays) {
  if (node === null || typeof node !== "object") return node;
  if ("$array" in node) return arrays[node.$array];
  if (Array.isArray(node)) return node.map((item) => withArrays(item, arrays));
  return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, withArrays(v, arrays)]));
}

const warped = (x, nMixture, power) =>
  Float64Array.from(x, (v, i) => (i < nMixture ? Math.max(v, 0) ** power : v));

const REGRESSORS = {
  constant: ({ variance }) => () => [0, variance],

  given: ({ variance }) => (x, u) => [u, variance],

  process(node) {
    const { length, alpha, factor, signal, power } = node;
    const d = length.length;
    const n = alpha.length;
    const centers = new Float64Array(n * d);
    for (let i = 0; i < n; i++) {
      const row = warped(node.rows.subarray(i * d, (i + 1) * d), node.n_mixture, power);
      for (let j = 0; j < d; j++) centers[i * d + j] = row[j] / length[j];
    }
    const k = new Float64Array(n);
    return (x) => {
      const features = warped(x.subarray(0, d), node.n_mixture, power);
      for (let j = 0; j < d; j++) features[j] /= length[j];
      let mean = 0;
      for (let i = 0; i < n; i++) {
        let squared = 0;
        for (let j = 0; j < d; j++) squared += (features[j] - centers[i * d + j]) ** 2;
        k[i] = signal * matern(squared);
        mean += k[i] * alpha[i];
      }
      if (!factor) return [mean, NaN];
      return [mean, Math.max(signal - squareOf(factor, k), 1e-10 * signal)];
    };
  },

  law(node) {
    const { n_mixture, unit, rate, middle, level, own, common, rest, alpha, factor } = node;
    const n = alpha.length;
    const d = node.rows.length / n;
    const place = (x) => {
      const e = new Float64Array(n_mixture);
      const at = new Float64Array(d);
      let total = 0;
      for (let j = 0; j < n_mixture; j++) {
        e[j] = (-unit[j] * Math.expm1((-rate * x[j]) / unit[j])) / rate - middle[j];
        at[j] = e[j] / Math.sqrt(unit[j]) / node.length;
        total += e[j];
      }
      for (let j = n_mixture; j < d; j++) at[j] = x[j] / node.other_length;
      return { e, at, total };
    };
    const known = Array.from({ length: n }, (_, i) => place(node.rows.subarray(i * d, (i + 1) * d)));
    const kernel = (a, b) => {
      let [product, squared] = [0, 0];
      for (let j = 0; j < n_mixture; j++) product += a.e[j] * b.e[j];
      for (let j = 0; j < d; j++) squared += (a.at[j] - b.at[j]) ** 2;
      return level + own * product + common * a.total * b.total + rest * matern(squared);
    };
    return (x) => {
      const here = place(x);
      const k = Float64Array.from(known, (row) => kernel(here, row));
      const mean = k.reduce((sum, value, i) => sum + value * alpha[i], 0);
      const inside = Math.min(Math.max(mean, node.range[0]), node.range[1]);
      if (!factor) return [inside, NaN];
      return [inside, Math.max(kernel(here, here) - squareOf(factor, k), 1e-8)];
    };
  },

  trees(node) {
    const { root, feature, threshold, child, value, start, variable, coefficient } = node;
    const leafOf = (place, f) => {
      while (place >= 0) place = child[2 * place + (f[feature[place]] <= threshold[place] ? 0 : 1)];
      return -1 - place;
    };
    const worth = (leaf, f) => {
      let sum = value[leaf];
      for (let i = start[leaf]; i < start[leaf + 1]; i++) sum += coefficient[i] * f[variable[i]];
      return sum;
    };
    return (x) => {
      const f = warped(x, node.n_mixture, node.power);
      let at = 0;
      const each = node.trees.map((count) => {
        let sum = 0;
        for (const end = at + count; at < end; at++) sum += worth(leafOf(root[at], f), f);
        return sum;
      });
      const last = node.has_final ? each.pop() : null;
      const mean = each.reduce((a, b) => a + b, 0) / each.length;
      const spread = each.reduce((a, b) => a + (b - mean) ** 2, 0) / each.length;
      return [last ?? mean, (each.length - 1) * spread];
    };
  },

  sum({ first, second, optimism, amount }) {
    const process = regressor(first);
    const trees = second ? regressor(second) : () => [0, 0];
    return (x, u) => {
      const [mean, variance] = process(x, u);
      const [more, doubt] = trees(x, u);
      return [mean + amount * more, optimism * variance + amount ** 2 * doubt];
    };
  },

  mix({ first, second, weight }) {
    const [a, b] = [regressor(first), regressor(second)];
    return (x, u) => mixed(weight, a(x, u), b(x, u));
  },

  from_prior({ center, scale, whole }) {
    const inner = regressor(whole);
    return (x, p) => inner(x, (p - center) / scale);
  },

  blend({ weight, line, scale, residual, without }) {
    const left = regressor(residual);
    const other = without ? regressor(without) : null;
    return (x, u) => {
      const [mean, variance] = left(x, u);
      const doubt = 1 / line.rows + (u - line.center) ** 2 / line.energy;
      const lifted = [onLine(line, u) + scale * mean, scale ** 2 * (variance + doubt)];
      return other ? mixed(weight, lifted, other(x, u)) : lifted;
    };
  },

  lifted({ weight, line, trees }) {
    const inner = regressor(trees);
    return (x, u) => {
      const [mean, variance] = inner(x, u);
      return [mean + weight * onLine(line, u), variance];
    };
  },
};

function matern(squared) {
  const r = Math.sqrt(5 * squared);
  return (1 + r + (r * r) / 3) * Math.exp(-r);
}

// |F k|² of an upper triangle F, given row by row.
function squareOf(factor, k) {
  let square = 0;
  for (let i = 0, at = 0; i < k.length; i++) {
    let sum = 0;
    for (let j = i; j < k.length; j++) sum += factor[at++] * k[j];
    square += sum * sum;
  }
  return square;
}

const regressor = (node) => REGRESSORS[node.kind](node);
const onLine = (line, u) => line.height + line.slope * (u - line.center);
const mixed = (a, [m, v], [n, w]) => [
  a * m + (1 - a) * n,
  a * v + (1 - a) * w + a * (1 - a) * (m - n) ** 2,
];

function approximation(node) {
  if (!node) return null;
  if (!node.process) return () => node.center;
  const inner = regressor(node.process);
  return (x) => node.center + node.scale * inner(x)[0];
}

function benchmark({ center, scale, regressor: node, prior, mean, std }) {
  const exact = node ? regressor(node) : null;
  const [p, m, s] = [prior, mean, std].map(approximation);
  return (x) => {
    const [z, variance] = exact ? exact(x, p ? p(x) : 0) : [NaN, NaN];
    return [
      m ? m(x) : center + scale * z,
      s ? Math.exp(s(x)) : scale * Math.sqrt(Math.max(variance, 0)),
    ];
  };
}

// The composite of objective scores y (m), higher is better, as people are told it.
function composite({ weights, reference }) {
  if (!reference) return (y) => y.reduce((sum, value, j) => sum + weights[j] * value, 0);
  const ranks = reference.map(percentiles);
  return (y) => y.reduce((sum, value, j) => sum + weights[j] * ranks[j](value), 0);
}

// Share of a sorted reference that a value beats; ties share their mean rank, both ends are pinned.
function percentiles(sorted) {
  const [levels, ranks] = [[], []];
  for (let i = 0, end; i < sorted.length; i = end) {
    for (end = i; end < sorted.length && sorted[end] === sorted[i]; ) end++;
    levels.push(sorted[i]);
    ranks.push((i + (end - i - 1) / 2) / (sorted.length - 1));
  }
  const last = levels.length - 1;
  if (last < 0) return () => 0.5;
  if (last === 0) return (y) => 0.5 + 0.5 * Math.sign(y - levels[0]);
  const [low, high] = [ranks[0], ranks[last]];
  return (y) => {
    const inside = Math.min(Math.max(y, levels[0]), levels[last]);
    let [a, b] = [0, last];
    while (b - a > 1) {
      const middle = (a + b) >> 1;
      if (levels[middle] <= inside) a = middle;
      else b = middle;
    }
    const part = (inside - levels[a]) / (levels[b] - levels[a]);
    return (ranks[a] + part * (ranks[b] - ranks[a]) - low) / (high - low);
  };
}

// Predicts the objectives of a row: mean and standard deviation (m) in the study's own direction,
// and the composite at the mean and `z` standard deviations to either side.
function predictor(model) {
  const benchmarks = model.surrogate.map(benchmark);
  const merit = composite(model.composite);
  const m = model.signs.length;
  return (row, z) => {
    const each = benchmarks.map((predict) => predict(Float64Array.from(row)));
    const mean = new Array(m).fill(0);
    const std = new Array(m).fill(0);
    each.forEach(([value, doubt], i) => {
      for (let j = 0; j < m; j++) {
        mean[j] += value * model.mixing[i][j];
        std[j] += doubt * Math.abs(model.mixing[i][j]);
      }
    });
    const at = (shift) => merit(mean.map((value, j) => value + shift * std[j]));
    return {
      mean: mean.map((value, j) => value * model.signs[j]),
      std,
      composite: at(0),
      low: at(-z),
      high: at(z),
    };
  };
}
