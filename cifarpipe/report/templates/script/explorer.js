// Filters, and the tiles of the images that match.
const TILES_PER_PAGE = 60;
const form = document.getElementById("filters");
const field = (name) => form.elements.namedItem(name);
const status = document.getElementById("matches");
const list = document.getElementById("tiles");
const more = document.getElementById("more");
let found = []; // positions of matching images in this page, in order

function option(value, text) {
  const made = element("option", "", text);
  made.value = value;
  return made;
}

function fillFilters() {
  field("model").append(...models.map((model) => option(model.name, model.name)));
  for (const name of ["true", "predicted"]) {
    field(name).append(...data.classes.map((_, label) => option(String(label), className(label))));
  }
  field("flag").append(...Object.keys(data.flags).map((name) => option(name, name)));
  for (let n = 0; n <= models.length; n++) {
    const text = n === 0 ? "no model wrong" : n === models.length ? `all ${n} models wrong`
      : `${n} of ${models.length} models wrong`;
    field("shared")?.append(option(String(n), text));
  }
}

const chosenModel = () => byName.get(field("model").value);

function matching() {
  const model = chosenModel();
  const value = (name) => field(name)?.value ?? "";
  const label = (name) => (value(name) === "" ? null : Number(value(name)));
  const flagged = value("flag") ? bytes(data.flags[value("flag")]) : null; // a bit for each image
  const [isTrue, isPredicted, shared] = ["true", "predicted", "shared"].map(label);
  const low = Math.round(Number(value("low")) * data.confidences);
  const high = Math.round(Number(value("high") || 1) * data.confidences);
  const outcome = value("outcome");
  const selected = new Set(model.selected[outcome]);
  const positions = [];
  for (let p = 0; p < count; p++) {
    const wrong = isWrong(model, p);
    const wanted = { all: true, errors: wrong, correct: !wrong, alone: wrong && wrongModels[p] === 1 };
    if (!(wanted[outcome] ?? selected.has(data.index[p]))) continue;
    if (isTrue !== null && truth[p] !== isTrue) continue;
    if (isPredicted !== null && model.predicted[p] !== isPredicted) continue;
    if (flagged && !((flagged[p >> 3] << (p & 7)) & 128)) continue;
    if (shared !== null && wrongModels[p] !== shared) continue;
    if (model.confidence[p] < low || model.confidence[p] > high) continue;
    positions.push(p);
  }
  const order = value("order");
  if (order !== "index") {
    const sign = order === "most-confident" ? -1 : 1;
    positions.sort((a, b) => sign * (model.confidence[a] - model.confidence[b]) || a - b);
  }
  return positions;
}

// `expected`: the count that was clicked, which must be the number of matches.
function update(expected = null) {
  const all = matching();
  if (expected !== null) check(all.length === expected, `${expected} images counted, ${all.length} found`);
  found = all.filter((position) => slot.has(position));
  const rest = all.length - found.length;
  status.textContent = `${plural(all.length, "test image")} of ${count.toLocaleString("en")} ` +
    (all.length === 1 ? "matches" : "match") +
    (rest ? `; this page contains ${found.length.toLocaleString("en")} of them.` : ".");
  list.replaceChildren();
  addTiles();
}

function addTiles() {
  const start = list.children.length;
  const which = field("map").value;
  list.append(...found.slice(start, start + TILES_PER_PAGE)
    .map((position) => tile(chosenModel(), position, which)));
  more.hidden = list.children.length >= found.length;
  more.textContent = `Show more (${(found.length - list.children.length).toLocaleString("en")} left)`;
}

function choose(values) {
  const map = field("map").value;
  form.reset();
  for (const [name, value] of Object.entries({ map, ...values })) field(name).value = value;
}

function query(values, matches) {
  choose(values);
  update(matches);
  remember(true);
  writeAddress(); // before scrolling, so that Back returns to the count
  document.getElementById("explore").scrollIntoView();
  status.focus({ preventScroll: true });
}
