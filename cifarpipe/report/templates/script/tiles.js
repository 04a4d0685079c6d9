// Tiles: a test image beside its map, with its true and its predicted class.
const TILE_SIDE = 96; // pixels of a tile's map

function tile(model, position, which) {
  const item = document.createElement("li");
  const button = element("button");
  button.type = "button";
  button.dataset.position = position;
  const picture = canvas(data.size, null);
  drawTestImage(picture, slot.get(position));
  const images = element("span", "images");
  images.append(picture);
  if (which !== "none") images.append(mapImage(model, position, which, { side: TILE_SIDE, alone: true }));
  const predicted = element("span", isWrong(model, position) ? "wrong" : "correct",
    `→ predicted: ${className(model.predicted[position])} (${probabilityText(model.confidence[position])})`);
  button.append(
    images,
    element("small", "", `#${data.index[position]}`),
    element("span", "", `true: ${className(truth[position])}`),
    " ",
    predicted,
  );
  item.append(button);
  return item;
}

// Some of the selected images of a model, in its section; evenly spread, since they are sorted by class.
function fillGallery(list) {
  const model = byName.get(list.dataset.model);
  const all = model.selected[list.dataset.outcome].map((index) => positionOf.get(index))
    .filter((position) => slot.has(position));
  const most = Math.min(Number(list.dataset.most), all.length);
  const positions = Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)]);
  list.append(...positions.map((position) => tile(model, position, "predicted")));
  if (!positions.length) list.append(element("li", "soft", "None."));
}
