// Tables that can be sorted, and the counts of confusions.
function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = element("button", "sort");
    button.type = "button";
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
      const isMissing = (text) => text === "" || text === "–"; // comes last in both directions
      const numbers = Array.from(body.rows, key).every((text) => isMissing(text) || !Number.isNaN(Number(text)));
      const compare = numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
      const order = (a, b) => isMissing(a) - isMissing(b) || (down ? -1 : 1) * compare(a, b);
      body.append(...Array.from(body.rows).sort((a, b) => order(key(a), key(b))));
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

// Says what a count counts, for screen readers.
function describeCount(button) {
  const { model, ...filters } = JSON.parse(button.dataset.query);
  const textOf = (name, value) => Array.from(field(name).options).find((each) => each.value === value).text;
  const parts = Object.entries(filters).map(([name, value]) => {
    const text = textOf(name, value);
    return name === "true" || name === "predicted" ? `${name}: ${text}` : text;
  });
  const number = plural(Number(button.dataset.matches), "image");
  button.setAttribute("aria-label", [number, model, ...parts].join(", "));
}

// A part of the page is a stop of the tab key only while its content is wider than itself.
const widths = new ResizeObserver((entries) => {
  for (const part of new Set(entries.map(({ target }) => target.closest(".scroll")))) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
});

function focusWhileScrolling(part) {
  widths.observe(part);
  widths.observe(part.firstElementChild);
}
