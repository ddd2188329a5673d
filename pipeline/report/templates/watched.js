"use strict";
// The slider over the epochs: it shows each watched image's map after that epoch.
(() => {
  const { rows } = report;
  const slider = document.getElementById("watched-epoch");
  if (!slider) return;
  const maps = d3.index(rows("train/watch/maps.csv"), ({ epoch }) => epoch, ({ image }) => image);
  const epochs = d3.sort(maps.keys());
  const measured = new Map(rows("train/epochs").map((row) => [row.epoch, row]));
  const watched = [...document.querySelectorAll("#watched .overlaid")];

  const show = () => {
    const epoch = epochs[slider.value];
    const right = measured.get(epoch)?.["valid/accuracy"];
    const accuracy = right == null ? "" : `, ${(100 * right).toFixed(2)} % of the validation images right`;
    const output = document.getElementById("watched-shown");
    output.textContent = `${epoch} of ${epochs.at(-1)}${accuracy}`;
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    for (const each of watched) {
      const map = maps.get(epoch).get(+each.dataset.image);
      const picture = each.querySelector(".map svg");
      picture.toggleAttribute("hidden", !map);
      if (map) picture.setAttribute("viewBox", `${map.left} ${map.top} ${map.side} ${map.side}`);
      picture.setAttribute("aria-label", `map after epoch ${epoch} of ${each.dataset.name}`);
      each.parentElement.querySelector(".blank").textContent = map?.blank === "True" ? ": nothing stands out" : "";
    }
  };
  Object.assign(slider, { max: epochs.length - 1, value: epochs.length - 1, disabled: epochs.length < 2 });
  slider.addEventListener("input", show);
  show();
})();
