// The confusion matrix: whole for few classes, else of those with most mistakes, and the pairs that are most confused.
page.kind("confusion", (block, {classes, cells}) => {
  const MOST = 30; // classes in the matrix
  const LISTED = 40; // pairs below it
  const totals = new Map();
  const mistakes = new Map();
  const counts = new Map();
  const add = (map, key, count) => map.set(key, (map.get(key) ?? 0) + count);
  for (const [label, predicted, count] of cells) {
    counts.set(`${label},${predicted}`, count);
    add(totals, label, count);
    if (label !== predicted) {
      add(mistakes, label, count);
      add(mistakes, predicted, count);
    }
  }

  const show = (label, predicted) => document.dispatchEvent(new CustomEvent("show-images", {detail: {label, predicted}}));
  const images = (count) => `${count} image${count === 1 ? "" : "s"}`;

  function cell(label, predicted) {
    const count = counts.get(`${label},${predicted}`) ?? 0;
    const td = page.make("td", {class: label === predicted ? "right" : "wrong"});
    if (!count) return td;
    const share = count / totals.get(label);
    const words = `true ${classes[label]}, predicted ${classes[predicted]}: ${images(count)}, ` +
      `${page.percent(share)} of the class`;
    const button = page.make("button", {type: "button", "aria-label": words, title: words, tabindex: -1}, count);
    button.style.setProperty("--share", (0.12 + 0.88 * Math.sqrt(share)).toFixed(3));
    button.classList.toggle("strong", share > 0.45);
    button.addEventListener("click", () => show(label, predicted));
    td.append(button);
    return td;
  }

  // one cell is in the order of Tab; arrows lead to the next cell that has images
  function arrows(table) {
    const grid = [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((td) => td.firstChild));
    const first = grid.flat().find(Boolean);
    if (first) first.tabIndex = 0;
    const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    table.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      let row = grid.findIndex((buttons) => buttons.includes(event.target));
      if (!step || row < 0) return;
      event.preventDefault();
      let column = grid[row].indexOf(event.target);
      do {
        row += step[0];
        column += step[1];
      } while (grid[row]?.[column] === null);
      const next = grid[row]?.[column];
      if (!next) return;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }

  function matrix(shown) {
    const longest = Math.max(...shown.map((label) => classes[label].length));
    const long = longest > (shown.length <= 6 ? 10 : 4);
    const head = page.make("tr", {}, page.make("td"), ...shown.map((label) => page.make("th",
      {scope: "col", title: classes[label], class: long ? "slanted" : false}, page.make("span", {dir: "auto"}, classes[label]))));
    const rows = shown.map((label) => page.make("tr", {},
      page.make("th", {scope: "row", title: classes[label], dir: "auto"}, classes[label]),
      ...shown.map((predicted) => cell(label, predicted))));
    const table = page.make("table", {"aria-label": "confusion matrix: rows are true classes, columns predicted ones"},
      page.make("thead", {}, head), page.make("tbody", {}, ...rows));
    table.style.setProperty("--cell", shown.length <= 6 ? "4.5rem" : "2.6rem");
    arrows(table);
    return table;
  }

  function pairs() {
    const wrong = cells.filter(([label, predicted]) => label !== predicted).sort((a, b) => b[2] - a[2]).slice(0, LISTED);
    const titles = [["true class"], ["predicted"], ["images", "number"], ["share of the class", "number"], [""]];
    const head = page.make("tr", {}, ...titles.map(([title, kind]) => page.make("th", {scope: "col", class: kind ?? false},
      title ? page.make("button", {type: "button"}, title) : null)));
    const rows = wrong.map(([label, predicted, count]) => {
      const share = count / totals.get(label);
      const button = page.make("button", {type: "button", class: "show",
        "aria-label": `Show ${classes[label]} predicted as ${classes[predicted]}`}, "Show");
      button.addEventListener("click", () => show(label, predicted));
      return page.make("tr", {}, page.make("td", {dir: "auto"}, classes[label]), page.make("td", {dir: "auto"}, classes[predicted]),
        page.make("td", {class: "number", "data-sort": count}, count),
        page.make("td", {class: "number", "data-sort": share}, page.percent(share)), page.make("td", {}, button));
    });
    const table = page.make("table", {class: "sortable"}, page.make("thead", {}, head), page.make("tbody", {}, ...rows));
    page.sortable(table);
    return table;
  }

  const few = classes.length <= MOST;
  const order = [...classes.keys()];
  const shown = few ? order : order.filter((label) => mistakes.has(label))
    .sort((a, b) => mistakes.get(b) - mistakes.get(a)).slice(0, 20).sort((a, b) => a - b);
  const place = block.querySelector(".matrix");
  if (!few && shown.length) place.before(page.make("p", {class: "note"}, `The ${shown.length} of ${classes.length} classes with most mistakes.`));
  if (shown.length) place.append(matrix(shown));
  const list = block.querySelector(".pairs");
  if (mistakes.size) {
    list.append(page.make("h3", {}, "The most confused pairs"), page.make("div", {class: "scroll", tabindex: 0, role: "group",
      "aria-label": "the most confused pairs"}, pairs()));
  } else {
    list.append(page.make("p", {class: "note"}, "There was no mistake."));
  }
});
