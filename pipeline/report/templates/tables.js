"use strict";
// Tables that sort by the chosen heading, numbers by size. A second click reverses the order.
(() => {
  const key = (cell) => {
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "nan" ? NaN : +cell.dataset.value;
  };
  const isMissing = (value) => value === "" || Number.isNaN(value);
  const compare = (a, b) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const sign = heading.ariaSort === "descending" || (heading.ariaSort !== "ascending" && !heading.classList.contains("number")) ? 1 : -1;
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const sorted = [...table.tBodies[0].rows].sort((a, b) => {
          const [left, right] = [key(a.cells[column]), key(b.cells[column])];
          return isMissing(left) || isMissing(right) ? compare(left, right) : sign * compare(left, right);
        });
        table.tBodies[0].append(...sorted);
      });
    });
  }
})();
