"use strict";
// Spoiled images: accuracy over severity, one small chart per corruption.
(() => {
  const { rows, colours, chart } = report;
  const [blue, orange] = colours;
  const table = rows("robustness/robustness.csv");
  if (!table.length) return;

  const clean = table.find((row) => row.severity === 0);
  const names = [...new Set(table.filter((row) => row.severity > 0).map((row) => row.corruption))];
  const points = names.flatMap((name) => [{ ...clean, corruption: name }, ...table.filter((row) => row.corruption === name)]);
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  chart("robustness-chart", (options) => {
    const across = options.width < 500 ? 2 : 3;
    const place = (row) => names.indexOf(row.corruption);
    const facets = { fx: (row) => place(row) % across, fy: (row) => Math.floor(place(row) / across) };
    const titles = names.map((corruption) => ({ corruption }));
    return Plot.plot({
      ...options,
      height: 150 * Math.ceil(names.length / across) + 40,
      marginLeft: 50,
      fx: { axis: null },
      fy: { axis: null, padding: 0.15 },
      x: { label: "severity", domain: [0, 5], ticks: 5 },
      y: { label: "accuracy", domain: [0, 1], tickFormat: "~%", grid: true, ticks: 4 },
      marks: [
        Plot.text(titles, { ...facets, text: "corruption", frameAnchor: "bottom-left", dx: 6, dy: -6, fill: "currentColor", fontWeight: "bold" }),
        Plot.areaY(points, { ...facets, x: "severity", y1: "low", y2: "high", fill: blue, fillOpacity: 0.15 }),
        Plot.lineY(points, { ...facets, x: "severity", y: "accuracy", stroke: blue, marker: "dot" }),
        ...("reference_accuracy" in clean ? [Plot.lineY(points, { ...facets, x: "severity", y: "reference_accuracy", stroke: orange, strokeDasharray: "5 4" })] : []),
        Plot.tip(points, Plot.pointer({ ...facets, x: "severity", y: "accuracy",
          title: (d) => `${d.corruption}, severity ${d.severity}\n${percent(d.accuracy)} (${percent(d.low)} to ${percent(d.high)})`, fill: "var(--surface)" })),
      ],
    });
  });
})();
