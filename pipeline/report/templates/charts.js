"use strict";
// Common code of all charts: reading tables, colours, and redrawing when the width of the page changes.
const report = (() => {
  const { tables, metrics } = JSON.parse(document.getElementById("data").textContent);

  // The rows of a table, as objects; empty if the page has no such table.
  const rows = (source) => {
    const columns = tables[source] ?? {};
    const names = Object.keys(columns);
    return names.length ? columns[names[0]].map((_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]]))) : [];
  };

  // Okabe and Ito's colours, from the style sheet, for light and dark.
  const colours = ["blue", "orange", "green", "purple", "yellow", "sky"].map((name) => `var(--${name})`);

  const format = (value) => {
    if (typeof value !== "number") return value ?? "–";
    return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
  };

  const PAPER = 680; // px, the width of A4 and Letter: charts drawn for the screen and shrunk would have text that is too small

  // In px. With Plot's own margins, the title of an axis touches its numbers.
  const MARGINS = { marginTop: 30, marginBottom: 44 };

  // Draws into the element with this id, if there is one, and again for each new width and for paper. `draw` takes Plot's options.
  const chart = (id, draw) => {
    const holder = document.getElementById(id);
    if (!holder) return () => {};
    let width = 0;
    const redraw = () => {
      const drawn = draw({ width, ...MARGINS, style: "overflow: visible; background: none", ariaLabel: holder.dataset.label });
      holder.replaceChildren(drawn);
      const svg = drawn.matches("svg") ? drawn : drawn.querySelector(":scope > svg");
      drawn.querySelectorAll("[class*=swatches] svg").forEach((swatch) => swatch.setAttribute("aria-hidden", "true"));
      // The chart is one image with one name. Plot also names its parts, but they have no role.
      svg.querySelectorAll("[aria-label]").forEach((part) => part.removeAttribute("aria-label"));
      svg.setAttribute("role", "img");
      holder.dispatchEvent(new Event("drawn"));
    };
    new ResizeObserver(() => {
      const wide = Math.floor(holder.clientWidth);
      if (wide && wide !== width) {
        width = wide;
        redraw();
      }
    }).observe(holder);
    let shown = 0;
    addEventListener("beforeprint", () => {
      [shown, width] = [width, PAPER];
      if (shown) redraw();
    });
    addEventListener("afterprint", () => {
      width = shown;
      if (shown) redraw();
    });
    return () => width && redraw();
  };

  // In a sandbox, as in MLflow's UI, a link within the page may count as leaving it.
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const heading = document.querySelector(`${link.getAttribute("href")} h2`);
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
      heading.parentElement.scrollIntoView();
    });
  }

  return { rows, metrics, colours, format, chart };
})();
