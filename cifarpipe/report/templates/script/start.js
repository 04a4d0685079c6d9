// What happens when.
document.documentElement.classList.toggle("large", data.size > data.losslessUpTo);
fillFilters();
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("table.confusion").forEach(confusion);
document.querySelectorAll("button[data-query]:not(.link, [aria-label])").forEach(describeCount);
document.querySelectorAll(".scroll").forEach(focusWhileScrolling);
document.querySelectorAll("canvas[data-palette]").forEach(drawBar);
form.addEventListener("input", (event) => {
  update();
  remember(event.target.tagName === "SELECT"); // but not at every digit of a number
});
form.querySelector("[type=reset]").addEventListener("click", () => {
  setTimeout(() => { update(); remember(true); }); // when the fields have changed
});
form.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => {
  const next = list.children.length;
  addTiles();
  list.children[next].querySelector("button").focus();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-query], button[data-position]");
  if (!button) return;
  if (button.dataset.query) {
    query(JSON.parse(button.dataset.query), Number(button.dataset.matches));
    return;
  }
  const { gallery } = button.closest("ul").dataset;
  if (gallery) { // Previous and Next stay among its images
    choose({ model: field("model").value, order: "index", ...JSON.parse(gallery) });
    update();
  }
  showPosition(Number(button.dataset.position), field("model").value);
});
document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
const close = () => {
  dialog.close();
  remember(true);
};
document.getElementById("close").addEventListener("click", close);
dialog.addEventListener("cancel", (event) => { // the key Escape
  event.preventDefault();
  close();
});
dialog.addEventListener("close", () => { // there may be no tile that had the focus before
  const { activeElement } = document;
  if (activeElement !== document.body && !dialog.contains(activeElement)) return;
  (list.children[current]?.querySelector("button") ?? status).focus({ preventScroll: true });
});
dialog.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser's own
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
addEventListener("popstate", (event) => follow(event.state?.view));
const loaded = (picture, uri) => new Promise((resolve, reject) => {
  picture.addEventListener("load", resolve);
  picture.addEventListener("error", reject);
  picture.src = uri;
});
Promise.all([loaded(sprite, data.sprite), loaded(trainingSprite, data.training.sprite)]).then(() => {
  readSprite();
  document.querySelectorAll(".tiles.selected").forEach(fillGallery);
  document.querySelectorAll(".tiles.checks").forEach(fillChecks);
  update();
  follow();
  document.documentElement.dataset.ready = "";
}, () => showError("The images of this page can't be read. Is the file complete?"));
document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });
