"use strict";
// A learning curve: accuracy over the number of images, measured and continued.
(() => {
  const { rows, colours, chart } = report;
  const [blue] = colours;
  const measured = rows("learning_curve/learning_curve.csv");
  const forecast = rows("learning_curve/forecast.csv");
  if (!measured.length) return;

  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const words = (d) => `${Math.round(d.images)} images\n${percent(d.accuracy)} (${percent(d.low)} to ${percent(d.high)})`;
  const today = measured[measured.length - 1].images;
  chart("learning-chart", (options) =>
    Plot.plot({
      ...options,
      width: Math.min(options.width, 680),
      height: Math.min(options.width, 680) * 0.6,
      marginLeft: 50,
      marginRight: 30,
      x: { type: "log" },
      y: { label: "test accuracy", tickFormat: "~%", grid: true, nice: true },
      marks: [
        // Without texts of its own, a logarithmic axis leaves out some labels.
        Plot.axisX([...measured, forecast[forecast.length - 1]], { x: "images", text: (d) => d.images.toLocaleString("en"), label: "train images" }),
        Plot.areaY(forecast, { x: "images", y1: "low", y2: "high", fill: blue, fillOpacity: 0.15 }),
        Plot.lineY(forecast, { x: "images", y: "accuracy", stroke: blue }),
        Plot.ruleX([today], { stroke: "currentColor", strokeDasharray: "5 4" }),
        Plot.ruleX(measured, { x: "images", y1: "low", y2: "high", stroke: blue, strokeWidth: 2 }),
        Plot.dot(measured, { x: "images", y: "accuracy", fill: blue, r: 4 }),
        Plot.tip(measured, Plot.pointerX({ x: "images", y: "accuracy", title: words, fill: "var(--surface)" })),
      ],
    }),
  );
})();
