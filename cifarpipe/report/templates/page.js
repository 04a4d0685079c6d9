"use strict";
// The image explorer of the report. Its input is one JSON block, #data, written by explorer.py: all
// predictions of all models, and some images with their maps. A position is an index into the test
// split, from 0.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SIDE = 128; // pixels of an upscaled image
  const TILES_PER_PAGE = 60;

  // ---- Data ----
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const wide = (text) => new Uint16Array(bytes(text).buffer);
  const labels = data.classes.length <= 256 ? bytes : wide;
  const evidencePalette = bytes(data.evidence);
  const contrastPalette = bytes(data.contrast);
  const truth = labels(data.true);
  const count = truth.length;
  const slot = new Map(data.shown.map((position, number) => [position, number]));
  // Unless the method is class-agnostic, an error has a second map: that of its true class.
  const hasTwo = (model, position) => model.classSpecific && model.predicted[position] !== truth[position];
  const models = data.models.map((model) => {
    const known = {
      ...model,
      predicted: labels(model.predicted),
      confidence: wide(model.confidence),
      trueProbability: wide(model.trueProbability),
      maps: new Int8Array(bytes(model.maps).buffer),
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

  function check(holds, what) {
    if (holds) return;
    const banner = document.getElementById("page-error");
    banner.hidden = false;
    banner.textContent = `This page is inconsistent: ${what}.`;
    throw new Error(what);
  }

  const probabilityText = (value) => (value / 10000).toFixed(2);
  const className = (label) => data.classes[label] || "(no name)";
  const sprite = new Image();

  // ---- Drawing ----
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

  function drawTestImage(target, number) {
    const size = data.size;
    const context = target.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    const left = (number % data.columns) * size;
    const top = Math.floor(number / data.columns) * size;
    context.drawImage(sprite, left, top, size, size, 0, 0, target.width, target.height);
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

  // A map of values in -1 to 1 over the image in grey; opacity grows with the value.
  function drawMap(target, number, map, grid, palette, signed) {
    drawTestImage(target, number);
    const side = target.width;
    const context = target.getContext("2d");
    const pixels = context.getImageData(0, 0, side, side);
    const strength = upsample(map, grid, side);
    for (let i = 0; i < strength.length; i++) {
      const at = 4 * i;
      const grey = (pixels.data[at] + pixels.data[at + 1] + pixels.data[at + 2]) / 3;
      const s = signed ? strength[i] : Math.max(strength[i], 0);
      const colour = 3 * Math.round(255 * Math.min(signed ? (s + 1) / 2 : s, 1));
      const alpha = data.opacity * Math.min(Math.abs(s), 1);
      for (let c = 0; c < 3; c++) {
        pixels.data[at + c] = alpha * palette[colour + c] + (1 - alpha) * grey;
      }
    }
    context.putImageData(pixels, 0, 0);
  }

  function mapsOf(model, position) {
    const number = slot.get(position);
    const cells = model.grid[0] * model.grid[1];
    const start = model.starts[number];
    const two = hasTwo(model, position);
    const both = Float32Array.from(model.maps.subarray(start, start + cells * (two ? 2 : 1)));
    // Both maps are scaled by their common maximum; negative evidence is not drawn.
    const evidence = both.map((value) => value / Math.max(...both, 1e-9));
    const predicted = evidence.subarray(0, cells);
    if (!two) return { predicted };
    const difference = both.subarray(0, cells).map((value, i) => value - both[cells + i]);
    const most = difference.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-9);
    return {
      predicted,
      wanted: evidence.subarray(cells),
      difference: difference.map((value) => value / most),
    };
  }

  // ---- Filters ----
  const form = document.getElementById("filters");
  const field = (name) => form.elements.namedItem(name);
  const status = document.getElementById("matches");
  const list = document.getElementById("tiles");
  const more = document.getElementById("more");
  let found = []; // positions of matching images in this page, in order
  let expected = null; // number of matches, if a count was clicked

  function option(value, text) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    return made;
  }

  function fill() {
    field("model").append(...models.map((model) => option(model.name, model.name)));
    for (const name of ["true", "predicted"]) {
      field(name).append(...data.classes.map((_, label) => option(String(label), className(label))));
    }
    field("flag")?.append(...Object.keys(data.flags).map((name) => option(name, name)));
    for (let n = 0; n <= models.length; n++) {
      const text = n === 0 ? "no model wrong" : n === models.length ? `all ${n} models wrong`
        : `${n} of ${models.length} models wrong`;
      field("shared")?.append(option(String(n), text));
    }
  }

  function matching() {
    const model = byName.get(field("model").value);
    const value = (name) => field(name)?.value ?? "";
    const label = (name) => (value(name) === "" ? null : Number(value(name)));
    const flagged = value("flag") ? new Set(data.flags[value("flag")]) : null;
    const [isTrue, isPredicted, shared] = ["true", "predicted", "shared"].map(label);
    const low = Math.round(Number(value("low")) * 10000);
    const high = Math.round(Number(value("high") || 1) * 10000);
    const outcome = value("outcome");
    const selected = new Set(model.selected[outcome]);
    const positions = [];
    for (let p = 0; p < count; p++) {
      const wrong = model.predicted[p] !== truth[p];
      const wanted = { all: true, errors: wrong, correct: !wrong, alone: wrong && wrongModels[p] === 1 };
      if (!(wanted[outcome] ?? selected.has(data.index[p]))) continue;
      if (isTrue !== null && truth[p] !== isTrue) continue;
      if (isPredicted !== null && model.predicted[p] !== isPredicted) continue;
      if (flagged && !flagged.has(p)) continue;
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

  const plural = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

  function update() {
    const all = matching();
    if (expected !== null) check(all.length === expected, `${expected} images counted, ${all.length} found`);
    expected = null;
    found = all.filter((position) => slot.has(position));
    const rest = all.length - found.length;
    status.textContent = `${plural(all.length, "test image")} of ${count.toLocaleString("en")} ` +
      (all.length === 1 ? "matches" : "match") +
      (rest ? `; this page contains ${found.length.toLocaleString("en")} of them.` : ".");
    list.replaceChildren();
    addTiles();
  }

  function addTiles() {
    const model = byName.get(field("model").value);
    const start = list.children.length;
    for (const position of found.slice(start, start + TILES_PER_PAGE)) {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.position = position;
      const image = canvas(data.size, null);
      drawTestImage(image, slot.get(position));
      const is = document.createElement("span");
      is.textContent = `true: ${className(truth[position])}`;
      const predicted = document.createElement("span");
      predicted.textContent =
        `→ predicted: ${className(model.predicted[position])} (${probabilityText(model.confidence[position])})`;
      predicted.className = model.predicted[position] === truth[position] ? "correct" : "wrong";
      const number = document.createElement("small");
      number.textContent = `#${data.index[position]}`;
      button.append(image, number, is, " ", predicted);
      item.append(button);
      list.append(item);
    }
    more.hidden = list.children.length >= found.length;
    more.textContent = `Show more (${(found.length - list.children.length).toLocaleString("en")} left)`;
  }

  function query(values, matches) {
    form.reset();
    for (const [name, value] of Object.entries(values)) field(name).value = value;
    expected = matches;
    update();
    document.getElementById("explore").scrollIntoView();
    status.focus({ preventScroll: true });
  }

  // ---- One image, all models ----
  const dialog = document.getElementById("image");
  let current = 0; // index into `found`

  function figure(image, text) {
    const made = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = text;
    made.append(image, caption);
    return made;
  }

  function evidenceFigure(model, position, map, what, caption) {
    const image = canvas(SIDE, `Evidence of ${model.name} for ${what}, #${data.index[position]}`);
    if (Math.max(...map) <= 0) {
      const none = document.createElement("div");
      none.className = "none";
      none.textContent = "no positive evidence";
      return figure(none, caption);
    }
    drawMap(image, slot.get(position), map, model.grid, evidencePalette, false);
    return figure(image, caption);
  }

  function rowOf(model, position) {
    const row = document.createElement("section");
    const wrong = model.predicted[position] !== truth[position];
    const number = slot.get(position);
    const heading = document.createElement("h3");
    const prediction = document.createElement("span");
    prediction.className = wrong ? "wrong" : "correct";
    prediction.textContent = `${className(model.predicted[position])} ` +
      `(${probabilityText(model.confidence[position])}), ${wrong ? "wrong" : "correct"}`;
    heading.append(`${model.name}: `, prediction);
    const note = document.createElement("p");
    note.className = "soft";
    note.textContent = `${model.method}, grid of ${model.grid[0]} × ${model.grid[1]}, ` +
      `maximum ${model.peaks[number]}`;
    const maps = mapsOf(model, position);
    const strip = document.createElement("div");
    strip.className = "strip";
    const append = (map, which, label, probability) => strip.append(evidenceFigure(
      model, position, map, className(label), `${which}: ${className(label)} (${probabilityText(probability)})`));
    if (!model.classSpecific) {
      strip.append(evidenceFigure(model, position, maps.predicted, "any class", "any class: importance"));
    } else {
      append(maps.predicted, "predicted", model.predicted[position], model.confidence[position]);
    }
    if (maps.wanted) {
      append(maps.wanted, "true", truth[position], model.trueProbability[number]);
      const image = canvas(SIDE, `Difference of the two maps of ${model.name}, #${data.index[position]}`);
      drawMap(image, number, maps.difference, model.grid, contrastPalette, true);
      strip.append(figure(image, "predicted − true"));
    }
    row.append(heading, note, strip);
    return row;
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
      [`${place + 1} of ${found.length} shown`, ...other, ...(file ? [file] : [])].join("; ");
    const image = canvas(SIDE, `Test image ${data.index[position]}: ${className(truth[position])}`);
    drawTestImage(image, number);
    const own = document.getElementById("image-picture");
    own.replaceChildren(image);
    const rows = document.getElementById("image-models");
    rows.replaceChildren(...models.map((model) => rowOf(model, position)));
    // Not disabled, since a disabled button loses the focus and with it the arrow keys.
    document.getElementById("previous").setAttribute("aria-disabled", place === 0);
    document.getElementById("next").setAttribute("aria-disabled", place === found.length - 1);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  const step = (by) => {
    if (found[current + by] !== undefined) show(current + by);
  };

  function drawBar(id, palette) {
    const bar = document.getElementById(id);
    const context = bar.getContext("2d");
    for (let x = 0; x < bar.width; x++) {
      const at = 3 * Math.round((255 * x) / (bar.width - 1));
      context.fillStyle = `rgb(${palette[at]} ${palette[at + 1]} ${palette[at + 2]})`;
      context.fillRect(x, 0, 1, bar.height);
    }
  }

  // ---- Tables ----
  function sortable(table) {
    const body = table.tBodies[0];
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          return cell.dataset.value ?? cell.textContent.trim();
        };
        const numbers = Array.from(body.rows, key).every((text) => text === "" || !Number.isNaN(Number(text)));
        const compare = numbers ? (a, b) => (a === "" ? -Infinity : a) - (b === "" ? -Infinity : b)
          : (a, b) => a.localeCompare(b, "en", { numeric: true });
        const sorted = Array.from(body.rows).sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)));
        body.append(...sorted);
      });
    });
  }

  // Each cell queries its row and column; added here to keep the page small.
  function confusion(table) {
    table.querySelectorAll("tbody button").forEach((button) => {
      const cell = button.closest("td");
      const [isTrue, isPredicted] = [cell.parentElement.sectionRowIndex, cell.cellIndex - 1];
      const number = Number(button.textContent.replaceAll(",", ""));
      button.setAttribute("aria-label",
        `${plural(number, "image")}, true: ${className(isTrue)}, predicted: ${className(isPredicted)}`);
      button.dataset.matches = number;
      button.dataset.query = JSON.stringify({
        model: table.dataset.model, outcome: "all", true: String(isTrue), predicted: String(isPredicted),
      });
    });
  }

  // ---- Start ----
  fill();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("table.confusion").forEach(confusion);
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = list.children.length;
    addTiles();
    list.children[next].firstChild.focus();
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) show(found.indexOf(Number(button.dataset.position)));
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-query]");
    if (button) query(JSON.parse(button.dataset.query), Number(button.dataset.matches));
  });
  document.getElementById("previous").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  drawBar("evidence-bar", evidencePalette);
  drawBar("contrast-bar", contrastPalette);
  sprite.addEventListener("load", () => {
    update();
    document.documentElement.dataset.ready = "";
  });
  sprite.src = data.sprite;
  document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });
})();
