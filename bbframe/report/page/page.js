"use strict";
// What every page can do: a theme, sorted and filtered tables, texts to copy. A kind of section adds its own script,
// which calls page.kind(). Text from data goes into text nodes alone; nothing here parses markup.
const page = (() => {
  const kinds = new Map();
  const redraws = [];
  const root = document.documentElement;

  /** A new element: make("a", {href: "#x", class: "y"}, "text", another). A false or missing attribute is left out. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value === undefined || value === null) continue;
      if (/^on/i.test(name)) throw new Error(`${name}: use addEventListener`);
      element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
      child instanceof Node ? child : String(child)));
    return element;
  }

  /** Call start(block, data) for each section of a template. */
  function kind(name, start) { kinds.set(name, start); }

  /** Tell those who do not see the screen. */
  function say(text) { document.getElementById("said").textContent = text; }

  /** A number with so many significant digits, "–" for none. */
  function number(value, digits = 4) {
    if (value === null || value === undefined) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  }

  function percent(share, digits = 1) { return share === null ? "–" : `${(100 * share).toFixed(digits)} %`; }

  /** The colour that a variable of the style has now, such as colour("--ink"). */
  function colour(name) {
    const probe = make("span", {hidden: true});
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  /** Draw now, and again whenever the theme changes. */
  function themed(draw) {
    redraws.push(draw);
    draw();
  }

  /** A plugin of Chart.js that draws the interval of each point: a dataset's `ends` are [low, high] or null a point. */
  const whiskers = {
    id: "whiskers",
    afterDataLimits(chart, {scale}) {
      if (scale.axis !== "y") return;
      const ends = chart.data.datasets.filter((_, i) => chart.isDatasetVisible(i)).flatMap((set) => set.ends ?? [])
        .filter(Boolean).flat();
      if (!ends.length) return;
      const {minDefined, maxDefined} = scale.getUserBounds();
      if (!minDefined) scale.min = Math.min(scale.min, ...ends);
      if (!maxDefined) scale.max = Math.max(scale.max, ...ends);
    },
    beforeDatasetsDraw(chart) {
      const {ctx, scales, chartArea} = chart;
      ctx.save();
      ctx.beginPath();
      ctx.rect(chartArea.left - 8, chartArea.top - 8, chartArea.width + 16, chartArea.height + 16);
      ctx.clip();
      ctx.lineWidth = 1.5;
      ctx.globalAlpha = 0.55;
      chart.data.datasets.forEach((set, i) => {
        if (!set.ends || !chart.isDatasetVisible(i)) return;
        ctx.strokeStyle = set.borderColor;
        chart.getDatasetMeta(i).data.forEach((point, j) => {
          if (!set.ends[j]) return;
          const [low, high] = set.ends[j].map((value) => scales.y.getPixelForValue(value));
          ctx.beginPath();
          for (const y of [low, high]) {
            ctx.moveTo(point.x - 4, y);
            ctx.lineTo(point.x + 4, y);
          }
          ctx.moveTo(point.x, low);
          ctx.lineTo(point.x, high);
          ctx.stroke();
        });
      });
      ctx.restore();
    },
  };

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function startTheme() {
    const button = document.getElementById("theme");
    const update = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Show the page ${isDark() ? "light" : "dark"}`);
      for (const draw of redraws) draw();
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      update();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
    update();
  }

  /** Copy a text; where the browser forbids it, the text is selected, so that Ctrl+C does it. */
  async function copy(text, source, button) {
    const before = button.textContent;
    let done = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(source);
      done = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    }
    button.textContent = done;
    say(done);
    setTimeout(() => { button.textContent = before; }, 1600);
  }

  function compare(one, other) {
    const [a, b] = [Number(one), Number(other)];
    if (one !== "" && other !== "" && !Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    return one.localeCompare(other, undefined, {numeric: true});
  }

  /** Let the buttons in a table's head sort its rows by data-sort, or by the text; empty cells stay last. */
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => head.querySelector("button")?.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const order = now === null ? first : now === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[place].dataset.sort ?? row.cells[place].textContent;
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (key(a) === "") - (key(b) === "") || sign * compare(key(a), key(b)));
      table.tBodies[0].append(...rows);
      say(`sorted by ${head.textContent.trim()}, ${order}`);
    }));
  }

  function filterable(block) {
    const input = block.querySelector(".filter input");
    if (!input) return;
    const rows = [...block.querySelector("tbody").rows];
    const count = block.querySelector(".count");
    const update = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        left += !row.hidden;
      }
      count.textContent = words.length ? `${left} of ${rows.length}` : "";
    };
    input.addEventListener("input", update);
  }

  /** Mark in the navigation where the reader is. */
  function startNavigation() {
    const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
    const seen = new Set();
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const first = [...links.keys()].find((id) => seen.has(id));
      links.forEach((link, id) => link.setAttribute("aria-current", String(id === first)));
    }, {rootMargin: "-15% 0px -60% 0px"});
    for (const section of document.querySelectorAll("main > section[id]")) observer.observe(section);
  }

  function start() {
    for (const button of document.querySelectorAll("button.copy")) {
      const source = button.parentElement.querySelector("pre");
      button.addEventListener("click", () => copy(source.textContent, source, button));
    }
    document.querySelectorAll("table.sortable").forEach(sortable);
    document.querySelectorAll(".kind-table").forEach(filterable);
    for (const block of document.querySelectorAll(".block")) {
      const data = block.querySelector(':scope > script[type="application/json"]');
      if (data) kinds.get(block.dataset.kind)(block, JSON.parse(data.textContent));
    }
    startTheme();
    startNavigation();
  }

  return {make, kind, say, number, percent, colour, themed, whiskers, copy, sortable, start};
})();
