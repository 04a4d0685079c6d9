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
