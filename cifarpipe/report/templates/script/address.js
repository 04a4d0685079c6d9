// The view, filters and opened image, is in the page's address, as in `#model=vit&true=cat&image=3235`: it
// can be sent to a colleague. The browser's history holds it, too, also where the address is that of a section.
const FILTERS = Array.from(form.elements, (input) => input.name).filter(Boolean);
let following = false; // the page is changed to a view, not the address to that of the page

// What an option is called in the address: a class by its name.
const nameOf = (name, value) => (name === "true" || name === "predicted" ? plainName(Number(value)) : value);

function defaultOf(input) {
  if (!input.options) return input.defaultValue;
  return (Array.from(input.options).find((each) => each.defaultSelected) ?? input.options[0]).value;
}

function view() {
  const values = new URLSearchParams();
  for (const name of FILTERS) {
    const input = field(name);
    if (input.value !== defaultOf(input)) values.set(name, nameOf(name, input.value));
  }
  if (dialog.open) values.set("image", data.index[found[current]]);
  return values.toString();
}

const address = () => `#${view() || "explore"}`;

// `step`: Back returns from here to what was shown before. Written once for all changes of a click.
let pending = null;
function remember(step) {
  if (following) return;
  if (pending === null) queueMicrotask(writeAddress);
  pending = pending || step;
}

function writeAddress() {
  const change = pending ? "pushState" : "replaceState";
  pending = null;
  if (view() !== history.state?.view) keep(change, address());
}

function keep(change, url) {
  try {
    history[change]({ view: view() }, "", url);
  } catch {
    // A browser may forbid or limit it. Everything but Back works without.
  }
}

function valueOf(input, name, text) {
  if (!input.options) return text === "" || Number.isFinite(Number(text)) ? text : undefined;
  return Array.from(input.options, (each) => each.value)
    .find((value) => value !== "" && nameOf(name, value) === text);
}

// `known`: the view of an entry of the history. A new address, which has none, may hold one.
function follow(known) {
  const isQuery = location.hash.includes("=");
  const text = known ?? (isQuery ? location.hash.slice(1) : null);
  following = true;
  try {
    if (text !== null) showView(new URLSearchParams(text));
  } finally {
    following = false;
  }
  if (known !== undefined) return;
  if (isQuery) document.getElementById("explore").scrollIntoView();
  keep("replaceState", isQuery ? address() : location.href);
}

function showView(values) {
  const wanted = Object.fromEntries(FILTERS.map((name) => [name, defaultOf(field(name))]));
  const unknown = [];
  for (const [name, text] of values) {
    if (name === "image") continue;
    const value = FILTERS.includes(name) ? valueOf(field(name), name, text) : undefined;
    if (value === undefined) unknown.push(`${name}=${text}`);
    else wanted[name] = value;
  }
  // Tiles that stay keep the focus.
  if (FILTERS.some((name) => field(name).value !== wanted[name])) {
    for (const name of FILTERS) field(name).value = wanted[name];
    update();
  }
  if (values.has("image")) showIndex(values.get("image"), wanted.model);
  else if (dialog.open) dialog.close();
  if (unknown.length) status.textContent = `Not in this page: ${unknown.join(", ")}. ${status.textContent}`;
}

function showIndex(index, model) {
  const position = /^\d+$/.test(index) ? positionOf.get(Number(index)) : undefined;
  if (slot.has(position)) {
    showPosition(position, model);
  } else {
    if (dialog.open) dialog.close();
    status.textContent = `This page does not contain test image #${index}. ${status.textContent}`;
  }
}
