// Images, cut from two large pictures (one of test, one of training images), and maps over them.
const sprite = new Image();
const trainingSprite = new Image();
const evidencePalette = bytes(data.evidence);
const contrastPalette = bytes(data.contrast);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function canvas(side, label) {
  const made = document.createElement("canvas");
  made.width = made.height = side;
  if (label) {
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", label);
  } else {
    made.setAttribute("aria-hidden", "true");
  }
  return made;
}

function drawFrom(picture, { size, columns }, target, number) {
  const context = target.getContext("2d");
  context.imageSmoothingEnabled = target.width < size; // smaller than its pixels
  const left = (number % columns) * size;
  const top = Math.floor(number / columns) * size;
  context.drawImage(picture, left, top, size, size, 0, 0, target.width, target.height);
}

const drawTestImage = (target, number) => drawFrom(sprite, data, target, number);

function testImage(position) {
  const image = canvas(data.size, null);
  drawTestImage(image, slot.get(position));
  return image;
}

function trainingImage(number) {
  const image = canvas(data.training.size, null);
  drawFrom(trainingSprite, data.training, image, number);
  return image;
}

// Bilinear between the centres of the cells, as in the PNG files.
function upsample(map, [rows, columns], side) {
  const large = new Float32Array(side * side);
  const place = (i, length) => Math.min(Math.max(((i + 0.5) * length) / side - 0.5, 0), length - 1);
  for (let y = 0; y < side; y++) {
    const v = place(y, rows), y0 = Math.floor(v), y1 = Math.min(y0 + 1, rows - 1), b = v - y0;
    for (let x = 0; x < side; x++) {
      const u = place(x, columns), x0 = Math.floor(u), x1 = Math.min(x0 + 1, columns - 1), a = u - x0;
      large[y * side + x] =
        (1 - b) * ((1 - a) * map[y0 * columns + x0] + a * map[y0 * columns + x1]) +
        b * ((1 - a) * map[y1 * columns + x0] + a * map[y1 * columns + x1]);
    }
  }
  return large;
}

// The pixels of all test images, read once: reading them back for each map would take most of the time.
let spritePixels = null;

function readSprite() {
  const whole = document.createElement("canvas");
  [whole.width, whole.height] = [sprite.width, sprite.height];
  const context = whole.getContext("2d", { willReadFrequently: true });
  context.drawImage(sprite, 0, 0);
  spritePixels = context.getImageData(0, 0, whole.width, whole.height).data;
}

// A map of values in -1 to 1 over the image in grey; opacity grows with the value.
function drawMap(target, number, map, grid, palette, signed) {
  const side = target.width;
  const context = target.getContext("2d");
  const shown = context.createImageData(side, side);
  const strength = upsample(map, grid, side);
  const left = (number % data.columns) * data.size;
  const top = Math.floor(number / data.columns) * data.size;
  const source = (i) => Math.floor(((i + 0.5) * data.size) / side);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const from = 4 * ((top + source(y)) * sprite.width + left + source(x));
      const grey = (spritePixels[from] + spritePixels[from + 1] + spritePixels[from + 2]) / 3;
      const value = strength[y * side + x];
      const s = signed ? value : Math.max(value, 0);
      const colour = 3 * Math.round(255 * Math.min(signed ? (s + 1) / 2 : s, 1));
      const alpha = data.opacity * Math.min(Math.abs(s), 1);
      const at = 4 * (y * side + x);
      for (let c = 0; c < 3; c++) {
        shown.data[at + c] = alpha * palette[colour + c] + (1 - alpha) * grey;
      }
      shown.data[at + 3] = 255;
    }
  }
  context.putImageData(shown, 0, 0);
}

// The maps of one image; `true` and `difference` if there are two.
function mapsOf(model, position) {
  const number = slot.get(position);
  const cells = model.grid[0] * model.grid[1];
  const start = model.starts[number];
  const two = hasTwo(model, position);
  const both = Float32Array.from(model.maps.subarray(start, start + cells * (two ? 2 : 1)));
  // Both maps are scaled by their common maximum; negative evidence is not drawn.
  const strongest = Math.max(...both, 1e-9);
  const evidence = both.map((value) => value / strongest);
  const predicted = evidence.subarray(0, cells);
  if (!two) return { predicted };
  const difference = both.subarray(0, cells).map((value, i) => value - both[cells + i]);
  const most = difference.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-9);
  return {
    predicted,
    true: evidence.subarray(cells),
    difference: difference.map((value) => value / most),
  };
}

// A map over its image, or a field that says why there is none. Of a correct image the maps of the
// predicted and of the true class are one. `alone`: it is not seen beside the other map, whose scale
// it would share.
function mapImage(model, position, which, { side, label = null, alone = false }) {
  const maps = mapsOf(model, position);
  let map = maps[which] ?? (which === "true" ? maps.predicted : undefined);
  if (map === undefined) return element("div", "none", "there is only one map");
  const signed = which === "difference";
  const most = Math.max(...map);
  if (!signed && most <= 0) return element("div", "none", "no positive evidence");
  if (alone && !signed) map = map.map((value) => value / most);
  const image = canvas(side, label);
  const palette = signed ? contrastPalette : evidencePalette;
  drawMap(image, slot.get(position), map, model.grid, palette, signed);
  return image;
}

function drawBar(bar) {
  const palette = bar.dataset.palette === "contrast" ? contrastPalette : evidencePalette;
  const context = bar.getContext("2d");
  for (let x = 0; x < bar.width; x++) {
    const at = 3 * Math.round((255 * x) / (bar.width - 1));
    context.fillStyle = `rgb(${palette[at]} ${palette[at + 1]} ${palette[at + 2]})`;
    context.fillRect(x, 0, 1, bar.height);
  }
}
