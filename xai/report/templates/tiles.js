"use strict";
for (const grid of document.querySelectorAll(".grid")) {
  const box = grid.querySelector(".tiles");
  const sort = grid.querySelector("[data-sort]");
  const controls = grid.querySelector("[data-controls]");
  const tiles = [...box.children];
  const data = new Map(tiles.map((tile) => [tile, { place: JSON.parse(tile.dataset.place), value: JSON.parse(tile.dataset.value) }]));
  const place = (tile) => data.get(tile).place[sort.value] ?? Infinity;
  const show = () => {
    const order = sort.value ? [...tiles].sort((a, b) => place(a) - place(b)) : tiles;
    box.append(...order);
    for (const tile of tiles) {
      tile.querySelector(".value").textContent = sort.value ? data.get(tile).value[sort.value] ?? "–" : "";
      tile.hidden = !controls.checked && tile.dataset.kind === "control";
    }
  };
  sort.addEventListener("change", show);
  controls.addEventListener("change", show);
  show();
}
