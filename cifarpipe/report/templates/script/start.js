// What happens when.
fillFilters();
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("table.confusion").forEach(confusion);
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
  const gallery = button.closest(".gallery");
  if (gallery) {
    choose({ model: gallery.dataset.model, outcome: gallery.dataset.outcome, order: "index" });
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
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
addEventListener("popstate", follow);
const loaded = (picture, uri) => new Promise((resolve) => {
  picture.addEventListener("load", resolve);
  picture.src = uri;
});
Promise.all([loaded(sprite, data.sprite), loaded(trainingSprite, data.training.sprite)]).then(() => {
  readSprite();
  document.querySelectorAll(".gallery").forEach(fillGallery);
  document.querySelectorAll(".checks").forEach(fillChecks);
  follow();
  if (!status.textContent) update();
  document.documentElement.dataset.ready = "";
});
document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });
