// What one looks at is in the page's address, as in `#model=vit&true=cat&image=3235`: it can be sent
// to a colleague, and the browser's Back works.
const FILTERS = ["model", "outcome", "true", "predicted", "shared", "flag", "low", "high", "order", "map"];
let following = false; // the page is changed after its address, not the address after the page

// What an option is called in the address: a class by its name.
const nameOf = (name, value) => (name === "true" || name === "predicted" ? className(Number(value)) : value);

function defaultOf(input) {
  if (!input.options) return input.defaultValue;
  return (Array.from(input.options).find((each) => each.defaultSelected) ?? input.options[0]).value;
}

function address() {
  const values = new URLSearchParams();
  for (const name of FILTERS) {
    const input = field(name);
    if (input && input.value !== defaultOf(input)) values.set(name, nameOf(name, input.value));
  }
  if (dialog.open) values.set("image", data.index[found[current]]);
  return `#${values.size ? values : "explore"}`;
}

// `step`: Back returns from here to what was shown before. Written once for all changes of a click.
let pending = null;
function remember(step) {
  if (following) return;
  if (pending === null) queueMicrotask(writeAddress);
  pending = pending || step;
}

function writeAddress() {
  if (address() !== location.hash) history[pending ? "pushState" : "replaceState"](null, "", address());
  pending = null;
}

function valueOf(input, name, text) {
  if (!input.options) return text;
  return Array.from(input.options, (each) => each.value)
    .find((value) => value !== "" && nameOf(name, value) === text);
}

function follow() {
  const isQuery = location.hash.includes("=");
  following = true;
  if (dialog.open) dialog.close();
  if (isQuery || ["", "#explore"].includes(location.hash)) {
    const values = new URLSearchParams(isQuery ? location.hash.slice(1) : "");
    const chosen = {};
    for (const [name, text] of values) {
      const input = FILTERS.includes(name) ? field(name) : null;
      const value = input ? valueOf(input, name, text) : undefined;
      if (value !== undefined) chosen[name] = value;
    }
    form.reset();
    choose(chosen);
    update();
    if (isQuery) document.getElementById("explore").scrollIntoView();
    if (values.has("image")) showIndex(values.get("image"), chosen.model);
  }
  following = false;
}

function showIndex(index, model) {
  const position = positionOf.get(Number(index));
  if (slot.has(position)) {
    showPosition(position, model);
  } else {
    status.textContent = `This page does not contain test image #${index}. ${status.textContent}`;
  }
}
