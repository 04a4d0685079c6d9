// Tiles: one or two images over some words.
const TILE_SIDE = Math.max(96, data.size); // pixels of a tile's map

// A test image beside its map, with its true and its predicted class.
function tile(model, position, which) {
  const item = document.createElement("li");
  const button = element("button");
  button.type = "button";
  button.dataset.position = position;
  const images = element("span", "images");
  images.append(testImage(position));
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
  const { model: name, outcome } = JSON.parse(list.dataset.gallery);
  const model = byName.get(name);
  const selected = model.selected[outcome];
  const all = selected.map((index) => positionOf.get(index)).filter((position) => slot.has(position));
  const most = Math.min(Number(list.dataset.most), all.length);
  const positions = Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)]);
  list.append(...positions.map((position) => tile(model, position, "predicted")));
  if (!positions.length) list.append(element("li", "soft", selected.length ? "None in this page." : "None."));
}

// Test or training images whose labels, or similarity, someone should look at.
function fillChecks(list) {
  for (const { test, train, name, text, note } of JSON.parse(list.dataset.tiles)) {
    const number = trainingNumber.get(train);
    if ((test !== undefined && !slot.has(test)) || (train !== undefined && number === undefined)) continue;
    const item = element("li");
    const box = element(test === undefined ? "div" : "button");
    if (test !== undefined) {
      box.type = "button";
      box.dataset.position = test;
    }
    const images = element("span", "images");
    if (test !== undefined) images.append(testImage(test));
    if (train !== undefined) images.append(trainingImage(number));
    box.append(images, element("small", "", name), element("span", "", text), element("span", "", note));
    item.append(box);
    list.append(item);
  }
  const shown = list.children.length;
  const rest = Number(list.dataset.count) - shown;
  if (rest) list.append(element("li", "soft", shown ? `… and ${rest.toLocaleString("en")} more` : "None in this page."));
  else if (!shown) list.append(element("li", "soft", "None."));
}
