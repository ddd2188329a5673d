"use strict";
// A sweep: results over costs, importances, and one line per trial, with filters.
(() => {
  const { rows, metrics, colours, format, chart } = report;
  const trials = rows("sweep/study.csv");
  if (!trials.length) return;

  const names = Object.keys(trials[0]);
  const result = names.includes("value") ? "value" : "values_0";
  const objective = Object.keys(metrics.sweep).find((name) => name.startsWith("sweep/best_"))?.slice(11).replace("_", "/") ?? "result";
  const measured = new Set(["number", "state", "duration", "flops", "parameters", "tokens", "train_seconds", "images_per_second", "mlflow.run_id", "error", "goes_on_with"]);
  const isResult = (name) => name === "value" || name.startsWith("values_");
  const distinct = (name) => [...new Set(trials.map((row) => row[name]).filter((value) => value != null && value !== ""))]
    .sort(typeof trials.find((row) => row[name] != null)?.[name] === "number" ? d3.ascending : undefined);
  const parameters = names.filter((name) => !measured.has(name) && !isResult(name) && distinct(name).length > 1);

  const complete = trials.filter((row) => row.state === "COMPLETE" && row[result] != null);
  const bySize = parameters.includes("patch_size");
  if (new Set(complete.map((row) => row.flops)).size < 2) document.getElementById("costs").remove();
  if (!bySize) document.querySelector("#costs h3")?.replaceChildren("Result against cost");
  const sizes = bySize ? distinct("patch_size") : [];
  chart("cost-chart", (options) =>
    Plot.plot({
      ...options,
      height: 320,
      marginLeft: 55,
      marginRight: 30,
      x: { type: "log", label: "MFLOP per image", tickFormat: "~s", ticks: Math.max(2, options.width / 90), nice: true },
      y: { label: objective, grid: true, nice: true },
      ...(bySize && { color: { type: "ordinal", domain: sizes, range: colours }, symbol: { domain: sizes, legend: true, tickFormat: (d) => `${d} px` } }),
      marks: [
        Plot.dot(complete, {
          x: (row) => row.flops / 1e6,
          y: result,
          r: 5,
          strokeWidth: 2,
          ...(bySize ? { stroke: "patch_size", symbol: "patch_size" } : { stroke: colours[0] }),
          title: (row) => `trial ${row.number}: ${format(row[result])}\n${parameters.map((name) => `${name} ${format(row[name])}`).join("\n")}\n${format(row.train_seconds)} s of training`,
          tip: { fill: "var(--surface)" },
        }),
      ],
    }),
  );

  chart("importance-chart", (options) => {
    const importances = rows("sweep/importances.csv");
    return Plot.plot({
      ...options,
      height: 50 + 34 * importances.length,
      marginLeft: 110,
      marginRight: 60,
      x: { label: "importance", tickFormat: "~%", domain: [0, 1], grid: true },
      y: { label: null },
      marks: [
        Plot.barX(importances, { x: "importance", y: "parameter", fill: colours[0], sort: { y: "-x" } }),
        Plot.text(importances, { x: "importance", y: "parameter", text: (d) => `${(100 * d.importance).toFixed(0)} %`, textAnchor: "start", dx: 4, fill: "currentColor" }),
      ],
    });
  });

  // A dimension's place from 0 to 1 for each of its values: for numbers by size, logarithmic if they span decades.
  const dimensions = [...parameters, result].map((name) => {
    const values = distinct(name);
    const isNumber = typeof values[0] === "number";
    const isLog = isNumber && values[0] > 0 && values.at(-1) / values[0] > 20;
    const scale = isNumber ? (isLog ? d3.scaleLog() : d3.scaleLinear()).domain(d3.extent(values)) : d3.scalePoint(values, [0, 1]);
    const ticks = isNumber && values.length > 6 ? (isLog ? [values[0], values.at(-1)] : d3.extent(values)) : values;
    return { name, label: name === result ? objective : name, values, isNumber, scale, ticks, chosen: new Set(values) };
  });
  const isChosen = (row) => dimensions.every(({ name, chosen, values }) => row[name] == null || row[name] === "" || chosen.size === values.length || chosen.has(row[name]));

  const points = trials.flatMap((row) => dimensions
    .filter(({ name }) => row[name] != null && row[name] !== "")
    .map((each) => ({ row, trial: row.number, dimension: each.label, place: each.scale(row[each.name]) })));
  const line = (own, options) => Plot.line(own, { x: "dimension", y: "place", z: "trial", ...options });
  const redraw = chart("parallel-chart", (options) => {
    const isNarrow = options.width < 130 * dimensions.length;
    const [shown, faint] = [points.filter(({ row }) => isChosen(row)), points.filter(({ row }) => !isChosen(row))];
    return Plot.plot({
      ...options,
      height: 340,
      marginLeft: 50,
      marginRight: 60,
      marginTop: isNarrow ? 75 : 30,
      x: { type: "point", domain: dimensions.map(({ label }) => label), label: null, axis: "top", tickSize: 0, tickRotate: isNarrow ? -35 : 0 },
      y: { axis: null, domain: [0, 1] },
      marks: [
        Plot.ruleX(dimensions, { x: "label", stroke: "currentColor", strokeOpacity: 0.5 }),
        line(faint, { stroke: "currentColor", strokeOpacity: 0.1 }),
        line(shown.filter(({ row }) => row.state !== "COMPLETE"), { stroke: "currentColor", strokeOpacity: 0.6, strokeDasharray: "4 3" }),
        line(shown.filter(({ row }) => row.state === "COMPLETE"), { stroke: colours[0], strokeWidth: 1.8, strokeOpacity: 0.85 }),
        Plot.text(dimensions.flatMap((each) => each.ticks.map((tick) => ({ label: each.label, tick, place: each.scale(tick) }))), {
          x: "label", y: "place", text: ({ tick }) => format(tick), textAnchor: "start", dx: 5, fill: "currentColor", stroke: "var(--surface)", strokeWidth: 4,
        }),
      ],
    });
  });

  const table = document.querySelector('table[data-source="sweep/study.csv"]');
  const numbered = new Map([...table.tBodies[0].rows].map((row) => [+row.querySelector("[data-value]").dataset.value, row]));
  const apply = () => {
    const chosen = trials.filter(isChosen);
    document.getElementById("filtered").textContent = `${chosen.length} of ${trials.length} trials chosen.`;
    for (const row of trials) numbered.get(row.number)?.toggleAttribute("hidden", !chosen.includes(row));
    redraw();
  };

  const filters = document.getElementById("filters");
  const labelled = (text, input) => {
    const label = document.createElement("label");
    label.append(text, input);
    return label;
  };
  const element = (name, properties) => Object.assign(document.createElement(name), properties);
  for (const dimension of dimensions) {
    const { label, values, isNumber } = dimension;
    if (values.length < 2) continue;
    const group = document.createElement("fieldset");
    group.append(element("legend", { textContent: label }));
    if (isNumber && values.length > 6) {
      const ends = ["from", "to"].map((end) => element("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: end === "from" ? 0 : values.length - 1 }));
      const output = element("output", { textContent: `${format(values[0])} to ${format(values.at(-1))}` });
      ends.forEach((input, i) => {
        input.setAttribute("aria-valuetext", format(values[input.value]));
        input.addEventListener("input", () => {
          if (+ends[0].value > +ends[1].value) ends[1 - i].value = input.value;
          ends.forEach((each) => each.setAttribute("aria-valuetext", format(values[each.value])));
          dimension.chosen = new Set(values.slice(+ends[0].value, +ends[1].value + 1));
          output.textContent = `${format(values[ends[0].value])} to ${format(values[ends[1].value])}`;
          apply();
        });
      });
      group.append(labelled("from ", ends[0]), labelled("to ", ends[1]), output);
    } else {
      for (const value of values) {
        const input = element("input", { type: "checkbox", checked: true });
        input.addEventListener("change", () => {
          dimension.chosen[input.checked ? "add" : "delete"](value);
          apply();
        });
        const label = document.createElement("label");
        label.append(input, ` ${format(value)}`);
        group.append(label);
      }
    }
    filters.append(group);
  }
  apply();
})();
