// One image, with the prediction and the maps of every model.
const SIDE = Math.max(128, data.size); // pixels of an opened image and its maps
const dialog = document.getElementById("image");
let current = 0; // index into `found`

function figure(image, text) {
  const made = document.createElement("figure");
  made.append(image, element("figcaption", "", text));
  return made;
}

function rowOf(model, position) {
  const row = document.createElement("section");
  const wrong = isWrong(model, position);
  const number = slot.get(position);
  const index = data.index[position];
  const heading = document.createElement("h3");
  heading.append(`${model.name}: `, element("span", wrong ? "wrong" : "correct",
    `${className(model.predicted[position])} ` +
    `(${probabilityText(model.confidence[position])}), ${wrong ? "wrong" : "correct"}`));
  const note = element("p", "soft", `${model.method}, grid of ${model.grid[0]} × ${model.grid[1]}, ` +
    `strongest value ${model.peaks[number]}`);
  const strip = element("div", "strip");
  const add = (which, what, caption) => strip.append(
    figure(mapImage(model, position, which, { side: SIDE, label: `${what}, #${index}` }), caption));
  const evidence = (which, label, probability) => add(which,
    `Evidence of ${model.name} for ${className(label)}`,
    `${which}: ${className(label)} (${probabilityText(probability)})`);
  if (model.classSpecific) {
    evidence("predicted", model.predicted[position], model.confidence[position]);
  } else {
    add("predicted", `Importance map of ${model.name}, for any class`, "any class: importance");
  }
  if (hasTwo(model, position)) {
    evidence("true", truth[position], model.trueProbability[number]);
    add("difference", `Difference of the two maps of ${model.name}`, "predicted − true");
  }
  row.append(heading, note, strip, ...nearestImages(model, position));
  return row;
}

// The training images that are most similar in the model's features; only their labels, if the page
// does not contain their pictures.
function nearestImages(model, position) {
  const start = slot.get(position) * model.neighbours;
  const places = Array.from({ length: model.neighbours }, (_, i) => start + i);
  if (!places.length) return [];
  const kind = (place) => (model.nearestLabels[place] === truth[position] ? "correct" : "wrong");
  const name = (place) => className(model.nearestLabels[place]);
  if (places.some((place) => model.nearest[place] < 0)) {
    const counts = new Map();
    for (const place of places) counts.set(name(place), (counts.get(name(place)) ?? 0) + 1);
    const text = element("p", "soft nearest", "labels of the nearest training images (pictures not in this page): ");
    const first = (label) => places.find((place) => name(place) === label);
    Array.from(counts).forEach(([label, times], i) => text.append(i ? ", " : "",
      element("span", kind(first(label)), times > 1 ? `${label} × ${times}` : label)));
    return [text];
  }
  const strip = element("div", "strip nearest");
  for (const place of places) {
    const number = model.nearest[place];
    const image = figure(trainingImage(number), name(place));
    image.lastChild.classList.add(kind(place));
    const file = data.training.files?.[number] ?? `#${data.training.index[number]}`;
    image.title = `training image ${file}, ` +
      `cosine similarity ${(model.similarity[place] / 100).toFixed(2)}`;
    strip.append(image);
  }
  return [element("p", "soft", "nearest training images, and their labels:"), strip];
}

function show(place) {
  current = place;
  const position = found[place];
  const number = slot.get(position);
  document.getElementById("image-title").textContent =
    `#${data.index[position]}, true: ${className(truth[position])}`;
  const file = data.files ? data.files[number] : "";
  const other = models.length > 1
    ? [`${wrongModels[position]} of ${models.length} models wrong`] : [];
  document.getElementById("image-place").textContent =
    [`image ${place + 1} of ${found.length}`, ...other, ...(file ? [file] : [])].join("; ");
  const image = canvas(SIDE, `Test image ${data.index[position]}: ${className(truth[position])}`);
  drawTestImage(image, number);
  document.getElementById("image-picture").replaceChildren(image);
  const rows = document.getElementById("image-models");
  rows.replaceChildren(...models.map((model) => rowOf(model, position)));
  // Not disabled, since a disabled button loses the focus and with it the arrow keys.
  document.getElementById("previous").setAttribute("aria-disabled", place === 0);
  document.getElementById("next").setAttribute("aria-disabled", place === found.length - 1);
  const opened = !dialog.open;
  if (opened) dialog.showModal();
  dialog.scrollTop = 0;
  remember(opened);
}

// Show a test image even if the filters exclude it.
function showPosition(position, model) {
  if (!found.includes(position)) {
    choose({ outcome: "all", ...(model ? { model } : {}) });
    update();
  }
  show(found.indexOf(position));
}

const step = (by) => {
  if (found[current + by] !== undefined) show(current + by);
};
