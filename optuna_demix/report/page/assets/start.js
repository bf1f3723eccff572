const stored = JSON.parse(document.getElementById("content").textContent);
const content = withArrays(stored.data, readArrays(stored.arrays));
const predict = predictor(content.whatIf);
for (const figure of document.querySelectorAll("figure.chart"))
  drawnAtItsWidth(figure, content.charts[figure.dataset.chart]);
const panel = whatIf(content, predict);
// For programs that read this page: predictions of a row, and what the panel shows.
window.demix = { predict, panel, asYaml };
