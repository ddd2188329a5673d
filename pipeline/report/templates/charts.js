"use strict";
// What all charts share: the tables they draw, colours, and redrawing where the page changes its width.
const report = (() => {
  const { tables, metrics } = JSON.parse(document.getElementById("data").textContent);

  // The rows of a table, as objects; none where the page has no such table.
  const rows = (source) => {
    const columns = tables[source] ?? {};
    const names = Object.keys(columns);
    return names.length ? columns[names[0]].map((_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]]))) : [];
  };

  // Okabe and Ito's colours, as the style sheet has them for light and dark.
  const colours = ["blue", "orange", "green", "purple", "yellow", "sky"].map((name) => `var(--${name})`);

  const format = (value) => {
    if (typeof value !== "number") return value ?? "–";
    return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(4));
  };

  const PAPER = 680; // px, what A4 and Letter hold: drawn for the screen and shrunk, text would be too small to read

  // Draws into the holder of that id, where there is one, and again at each new width and for paper. `draw` takes Plot's options.
  const chart = (id, draw) => {
    const holder = document.getElementById(id);
    if (!holder) return () => {};
    let width = 0;
    const redraw = () => {
      const drawn = draw({ width, style: "overflow: visible; background: none", ariaLabel: holder.dataset.label });
      holder.replaceChildren(drawn);
      const svg = drawn.matches("svg") ? drawn : drawn.querySelector(":scope > svg");
      drawn.querySelectorAll("[class*=swatches] svg").forEach((swatch) => swatch.setAttribute("aria-hidden", "true"));
      // One image under one name: names of its parts, which Plot gives, belong to no role.
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

  // Where the page is shown in a sandbox, as MLflow does, a link to a place in it may count as leaving it.
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
