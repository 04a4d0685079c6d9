// The page's input, one JSON block written by explorer.py: all predictions of all models, and some
// images with their maps. A position is an index into the test split, from 0.
const data = JSON.parse(document.getElementById("data").textContent);

function bytes(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

const wide = (text) => new Uint16Array(bytes(text).buffer);
const labels = data.labelBytes === 1 ? bytes : wide;
const truth = labels(data.true);
const count = truth.length;
const slot = new Map(data.shown.map((position, number) => [position, number]));
const trainingNumber = new Map(data.training.shown.map((position, number) => [position, number]));
const positionOf = new Map(data.index.map((index, position) => [index, position]));
// Unless the method is class-agnostic, an error has a second map: that of its true class.
const hasTwo = (model, position) => model.classSpecific && model.predicted[position] !== truth[position];
const models = data.models.map((model) => {
  const known = {
    ...model,
    predicted: labels(model.predicted),
    confidence: wide(model.confidence),
    trueProbability: wide(model.trueProbability),
    maps: new Int8Array(bytes(model.maps).buffer),
    nearest: new Int16Array(bytes(model.nearest).buffer), // numbers of training pictures, or -1
    nearestLabels: labels(model.nearestLabels),
    similarity: new Int8Array(bytes(model.similarity).buffer), // in hundredths
    starts: [],
  };
  let start = 0;
  const cells = model.grid[0] * model.grid[1];
  for (const position of data.shown) {
    known.starts.push(start);
    start += cells * (hasTwo(known, position) ? 2 : 1);
  }
  check(start === known.maps.length, `${model.name}: maps are missing`);
  const wrong = truth.reduce((n, label, p) => n + (known.predicted[p] !== label), 0);
  check(wrong === model.errors, `${model.name}: errors do not add up`);
  return known;
});
const byName = new Map(models.map((model) => [model.name, model]));
const wrongModels = Array.from(truth, (label, p) =>
  models.reduce((n, model) => n + (model.predicted[p] !== label), 0));

function showError(text) {
  const banner = document.getElementById("page-error");
  banner.hidden = false;
  banner.textContent = text;
}

function check(holds, what) {
  if (holds) return;
  showError(`This page is inconsistent: ${what}.`);
  throw new Error(what);
}

// Of ten-thousandths; rounded as in the PNG files.
const probabilityText = (value) => (Math.floor((value + 50) / 100) / 100).toFixed(2);
const plainName = (label) => data.classes[label] || "(no name)";
// A name that is written from right to left is isolated, so that it does not reorder the text around it.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/;
const className = (label) => {
  const name = plainName(label);
  return RIGHT_TO_LEFT.test(name) ? `\u2068${name}\u2069` : name;
};
const plural = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const isWrong = (model, position) => model.predicted[position] !== truth[position];
