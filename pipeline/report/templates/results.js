"use strict";
// Evaluation and explanation: images of a cell, calibration, the slider of the maps, faithfulness.
(() => {
  const { rows, colours, format, chart } = report;
  const [blue, orange] = colours;

  const SVG = "http://www.w3.org/2000/svg";
  const thumbnails = rows("evaluate/thumbnails.csv");
  const panel = document.getElementById("cell-images");

  const picture = ({ name, left, top, side, true: is, predicted }) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", side < 100 ? "picture tiny" : "picture");
    svg.setAttribute("viewBox", `${left} ${top} ${side} ${side}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${name}, true ${is}, predicted ${predicted}`);
    svg.append(document.createElementNS(SVG, "use"));
    svg.firstChild.setAttribute("href", "#thumbnails");
    return svg;
  };

  const show = ({ true: is, predicted, count }) => {
    const found = thumbnails.filter((row) => row.true === is && row.predicted === predicted);
    const heading = document.createElement("h3");
    heading.textContent = `True ${is}, predicted ${predicted}: ${found.length < count ? `${found.length} of ` : ""}${count}`;
    const list = document.createElement("ul");
    list.className = "thumbnails";
    for (const row of found) {
      const item = document.createElement("li");
      const caption = document.createElement("span");
      caption.textContent = `${(100 * row.confidence).toFixed(1)} %`;
      caption.title = row.name;
      item.append(picture(row), caption);
      list.append(item);
    }
    const remark = document.createElement("p");
    remark.className = "remark";
    remark.textContent = found.length ? "Under each image, how sure the model was." : "No images of this cell were kept.";
    panel.replaceChildren(heading, remark, list);
  };

  if (panel) {
    const buttons = [...document.querySelectorAll(".matrix button")];
    const classes = [...document.querySelectorAll(".matrix tbody th")].map((heading) => heading.textContent);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
        const { row, column } = button.dataset;
        show({ true: classes[row], predicted: classes[column], count: +button.textContent });
      });
    }
  }

  const bins = rows("evaluate/reliability.csv").filter((row) => row.count > 0);
  chart("reliability-chart", (options) =>
    Plot.plot({
      ...options,
      width: Math.min(options.width, 560),
      height: Math.min(options.width, 560) * 0.75,
      marginLeft: 50,
      x: { label: "confidence", domain: [0, 1], tickFormat: "~%" },
      y: { label: "accuracy", domain: [0, 1], tickFormat: "~%", grid: true },
      marks: [
        Plot.rectY(bins, { x1: "low", x2: "high", y: "accuracy", fill: blue, fillOpacity: 0.75, insetLeft: 1, insetRight: 1 }),
        Plot.link([0], { x1: 0, y1: 0, x2: 1, y2: 1, stroke: "currentColor", strokeDasharray: "5 4" }),
        Plot.link(bins, { x1: "low", x2: "high", y1: "confidence", y2: "confidence", stroke: orange, strokeWidth: 3 }),
        Plot.tip(bins, Plot.pointerX({ x: (d) => (d.low + d.high) / 2, y: "accuracy",
          title: (d) => `${d.count} images\naccuracy ${(100 * d.accuracy).toFixed(1)} %\nconfidence ${(100 * d.confidence).toFixed(1)} %`, fill: "var(--surface)" })),
      ],
    }),
  );

  const risks = rows("evaluate/risk_coverage.csv");
  const highest = 1.2 * Math.max(0.01, ...risks.map((row) => row.error), ...risks.slice(-1).map((row) => row.error_high));
  chart("unsure-chart", (options) =>
    Plot.plot({
      ...options,
      width: Math.min(options.width, 560),
      height: Math.min(options.width, 560) * 0.6,
      marginLeft: 50,
      x: { label: "answered images", domain: [0, 1], tickFormat: "~%" },
      y: { label: "wrong among them", domain: [0, highest], tickFormat: "~%", grid: true },
      marks: [
        Plot.areaY(risks, { x: "coverage", y1: "error_low", y2: "error_high", fill: blue, fillOpacity: 0.15, clip: true }),
        Plot.lineY(risks, { x: "coverage", y: "error", stroke: blue, marker: risks.length === 1 ? "dot" : null }),
        Plot.tip(risks, Plot.pointerX({ x: "coverage", y: "error",
          title: (d) => `confidence from ${(100 * d.threshold).toFixed(1)} %\n${(100 * d.coverage).toFixed(1)} % answered\n${(100 * d.error).toFixed(2)} % of them wrong`, fill: "var(--surface)" })),
      ],
    }),
  );

  const opacity = document.getElementById("opacity");
  if (opacity) {
    const apply = () => {
      document.getElementById("errors").style.setProperty("--opacity", opacity.value / 100);
      document.getElementById("opacity-shown").textContent = `${opacity.value} %`;
    };
    opacity.addEventListener("input", apply);
    apply();
  }

  const curves = rows("explain/explain/faithfulness.csv");
  const sources = [...new Set(curves.map((row) => row.source))];
  chart("faithfulness-chart", (options) =>
    Plot.plot({
      ...options,
      height: 320,
      marginLeft: 50,
      x: { label: "pixels removed", tickFormat: "~%" },
      y: { label: "confidence", domain: [0, 1], tickFormat: "~%", grid: true },
      color: { domain: sources, range: colours },
      symbol: { domain: sources, legend: true },
      marks: sources.flatMap((source) =>
        ["most", "least"].flatMap((which) => {
          const own = curves.filter((row) => row.source === source && row.order.startsWith(which));
          return [
            Plot.lineY(own, { x: "fraction", y: "confidence", stroke: "source", strokeWidth: 2, strokeDasharray: which === "least" ? "5 4" : null }),
            Plot.dot(own, { x: "fraction", y: "confidence", stroke: "source", symbol: "source", fill: "var(--surface)", r: 3.5,
              title: (d) => `${d.source}, ${d.order}\n${format(100 * d.fraction)} % removed: ${format(d.confidence)}`, tip: { fill: "var(--surface)" } }),
          ];
        }),
      ),
    }),
  );
})();
