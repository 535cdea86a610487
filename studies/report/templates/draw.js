"use strict";
const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const figures = [...document.querySelectorAll(".figure")];
for (const element of figures) {
  const { data, layout } = JSON.parse(document.getElementById(element.id + "-data").textContent);
  Plotly.newPlot(element, data, layout, config);
}
const PAPER = 680; // pixels that fit the width of A4 and Letter
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.figures")) details.open = true;
  for (const element of figures) Plotly.relayout(element, { width: PAPER });
});
window.addEventListener("afterprint", () => {
  for (const element of figures) Plotly.relayout(element, { width: null, autosize: true });
});
