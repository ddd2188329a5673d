"use strict";
// The range test, and the curves of a training under one cursor.
(() => {
  const { rows, metrics, colours, format, chart } = report;
  const [blue, orange] = colours;

  const ladders = rows("lr_range/lr_range.csv").filter((row) => row.lr > 0);
  const named = Object.entries({ valley: "valley", steepest: "steepest", minimum_over_10: "minimum / 10" })
    .map(([rule, name], i) => ({ name, rate: metrics.lr_range?.[`lr_range/${rule}`], colour: colours[i + 1] }))
    .filter(({ rate }) => rate > 0);
  const suggested = metrics.lr_range?.["lr_range/suggestion"];
  const starts = d3.max(d3.groups(ladders, (row) => row.repeat), ([, [first]]) => first.smoothed);
  const lowest = d3.min(ladders, (row) => row.loss);
  chart("range-chart", (options) => {
    const room = Math.max(starts - lowest, starts / 4) / 2;
    return Plot.plot({
      ...options,
      height: 340,
      marginTop: 60,
      marginLeft: 50,
      x: { type: "log", label: "learning rate", tickFormat: "~e", ticks: Math.max(2, options.width / 110) },
      y: { label: "cross-entropy (nats)", domain: [lowest - room / 5, starts + room], clamp: true, grid: true },
      marks: [
        Plot.line(ladders, { x: "lr", y: "loss", z: "repeat", stroke: blue, strokeOpacity: 0.25, strokeWidth: 0.8, clip: true }),
        Plot.line(ladders, { x: "lr", y: "smoothed", z: "repeat", stroke: blue, strokeWidth: 1.8, clip: true }),
        Plot.ruleX(named, { x: "rate", stroke: "colour", strokeWidth: (d) => (d.rate === suggested ? 2.5 : 1.5), strokeDasharray: "4 3" }),
        ...named.map((each, i) =>
          Plot.text([each], {
            x: "rate",
            frameAnchor: "top",
            dy: -14 - 15 * i,
            textAnchor: "middle",
            text: ({ name, rate }) => `${name} ${rate.toExponential(2)}${rate === suggested ? ", suggested" : ""}`,
          }),
        ),
      ],
    });
  });

  const cycles = rows("lr_range/short_cycles.csv");
  const cycleUpdates = rows("lr_range/short_cycle_updates.csv");
  const most = 1.3 * d3.max(cycles, (row) => row.first_loss);
  const ofLoss = (value) => Math.min(value ?? most, most);
  chart("cycles-chart", (options) => {
    const low = metrics.lr_range?.["lr_range/low"];
    const high = metrics.lr_range?.["lr_range/high"];
    const label = ({ accuracy }) => (accuracy == null ? "" : `${(100 * accuracy).toFixed(1)} %`);
    return Plot.plot({
      ...options,
      height: 300,
      marginTop: 40,
      marginLeft: 50,
      x: { type: "log", label: "peak learning rate", inset: 24, tickFormat: "~e", ticks: Math.max(2, options.width / 110) },
      y: { label: "cross-entropy at the end (nats)", grid: true, nice: true },
      marks: [
        low && high ? Plot.rectX([{ low, high }], { x1: "low", x2: "high", fill: colours[2], fillOpacity: 0.15 }) : null,
        suggested ? Plot.ruleX([suggested], { stroke: colours[2], strokeWidth: 2.5 }) : null,
        Plot.line(cycles, { x: "lr", y: (row) => ofLoss(row.loss), stroke: blue }),
        Plot.dot(cycles, { x: "lr", y: (row) => ofLoss(row.loss), fill: blue, r: 4 }),
        Plot.text(cycles, { x: "lr", y: (row) => ofLoss(row.loss), text: label, dy: -12 }),
        suggested ? Plot.text([suggested], { x: (rate) => rate, frameAnchor: "top", dy: -14, text: (rate) => `suggested ${rate.toExponential(2)}` }) : null,
      ],
    });
  });
  chart("cycle-updates-chart", (options) =>
    Plot.plot({
      ...options,
      height: 260,
      marginLeft: 50,
      x: { label: "update", tickFormat: "d" },
      y: { label: "train loss (nats)", grid: true },
      color: { type: "log", scheme: "viridis", reverse: true, label: "peak rate", legend: true, tickFormat: "~e" },
      marks: [Plot.line(cycleUpdates, { x: "update", y: (row) => ofLoss(row.loss), z: "peak", stroke: "peak", strokeWidth: 1.4 })],
    }),
  );

  const epochs = rows("train/epochs");
  const steps = rows("train/steps.csv");
  const slider = document.getElementById("epoch");
  if (!slider || !epochs.length) return;
  const last = d3.max(epochs, (row) => row.epoch);
  const shared = { marginLeft: 55, marginRight: 50, x: { label: "epoch", domain: [0, last], ticks: Math.min(last, 10), tickFormat: "d" } };
  const redraws = [];
  const curves = (id, marks, y, x = {}) => {
    const holder = document.getElementById(id);
    let scale;
    const draw = (options) => {
      const plot = Plot.plot({ ...options, ...shared, x: { ...shared.x, ...x }, height: 200, y: { grid: true, ...y }, marks });
      scale = plot.scale("x");
      d3.select(plot).append("line").attr("class", "cursor-line").attr("y1", 15).attr("y2", 172);
      return plot;
    };
    chart(id, draw);
    const place = () => d3.select(holder).select(".cursor-line").attr("x1", scale?.apply(+slider.value)).attr("x2", scale?.apply(+slider.value));
    holder.addEventListener("drawn", place);
    holder.addEventListener("pointermove", (event) => {
      slider.value = Math.round(scale.invert(d3.pointer(event, holder.querySelector("svg"))[0]));
      slider.dispatchEvent(new Event("input"));
    });
    redraws.push(place);
  };

  const splits = (quantity) =>
    Object.entries({ train: blue, valid: orange })
      .filter(([split]) => epochs.some((row) => row[`${split}/${quantity}`] != null))
      .flatMap(([split, stroke], i, both) => {
        const y = `${split}/${quantity}`;
        const end = (name) => epochs.at(-1)[`${name}/${quantity}`];
        const isUpper = both.every(([other]) => other === split || end(split) > end(other) || (end(split) === end(other) && i));
        return [
          Plot.lineY(epochs, { x: "epoch", y, stroke, strokeWidth: 2, strokeDasharray: i ? "6 3" : null }),
          Plot.dot(epochs, { x: "epoch", y, stroke, fill: "var(--surface)", r: epochs.length > 60 ? 0 : 2.5, symbol: i ? "diamond" : "circle" }),
          Plot.text(epochs.slice(-1), { x: "epoch", y, text: [split], textAnchor: "start", dx: 8, dy: isUpper ? -6 : 6, fill: "currentColor" }),
        ];
      });
  const updates = Plot.lineY(steps, { x: "epoch", y: "loss", stroke: blue, strokeOpacity: 0.25, strokeWidth: 0.8 });
  const positive = [...steps.map((row) => row.loss), ...epochs.flatMap((row) => [row["train/loss"], row["valid/loss"]])].every((v) => v == null || v > 0);
  curves("loss-chart", [updates, ...splits("loss")], { type: positive ? "log" : "linear", label: "loss", tickFormat: "~g", ticks: 4 });
  curves("accuracy-chart", splits("accuracy"), { label: "accuracy", tickFormat: "~%", nice: true });
  curves("rate-chart", [Plot.lineY(steps, { x: "epoch", y: "lr", stroke: "currentColor", strokeWidth: 1.5 })], { label: "rate", tickFormat: "~g", ticks: 4 });

  const output = document.getElementById("at-epoch");
  const tell = () => {
    const row = epochs.reduce((near, each) => (Math.abs(each.epoch - slider.value) < Math.abs(near.epoch - slider.value) ? each : near));
    const { epoch, ...values } = row;
    output.textContent = `${epoch}: ${Object.entries(values).filter(([, v]) => v != null)
      .map(([name, v]) => `${name.replace("/", " ")} ${name.endsWith("accuracy") ? `${(100 * v).toFixed(2)} %` : format(v)}`).join(", ")}`;
    redraws.forEach((place) => place());
  };
  slider.addEventListener("input", tell);
  tell();
})();
