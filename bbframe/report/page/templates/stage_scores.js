// The score of every stage: a row of cells a backbone, and a chart of those that are pressed.
page.kind("stage_scores", (block, {scores, rows, title}) => {
  const COLOURS = ["--blue", "--orange", "--green", "--red", "--purple"];
  const SHOWN = 5; // backbones in the chart at first
  const SMALLEST = [0.08, 0.92]; // the opacity of the lowest cell, and how much the highest adds
  const fields = block.querySelector("form").elements;
  const canvas = block.querySelector("canvas");
  const words = block.querySelector(".cell");
  const pressed = new Set();
  let which = 0;

  const shown = (value, digits = 3) => value === null ? "–" : Math.abs(value) < 10 ? value.toFixed(digits) : page.number(value);
  const cut = (text, limit) => text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
  const near = rows.filter((row) => row.verdict === "first" || row.verdict === "tied");
  for (const row of (near.length > 1 ? near : rows).slice(0, SHOWN)) pressed.add(rows.indexOf(row));

  /** The colour and the dash of a row in the chart: colours come again with other dashes. */
  function look(place) {
    const order = [...pressed].indexOf(place);
    const dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
    return {colour: page.colour(COLOURS[order % COLOURS.length]), dash: dashes[Math.floor(order / COLOURS.length) % dashes.length]};
  }

  function interval(cell) {
    const [low, high] = [cell.low[which], cell.high[which]];
    return low === null || high === null ? "" : ` [${shown(low)}, ${shown(high)}]`;
  }

  function describe(row, cell) {
    const facts = [cell.stride && `stride ${cell.stride}`, cell.channels && `${cell.channels} channels`].filter(Boolean);
    const chosen = cell.chosen ? ", chosen" : "";
    return `${row.name}, ${cell.name}${facts.length ? ` (${facts.join(", ")})` : ""}: ${scores[which].name} ` +
      `${shown(cell.scores[which])}${interval(cell)}${chosen}`;
  }

  /** The ends of the colours: from the value that a fifth of the cells are below, so that the best differ visibly. */
  function range() {
    const values = rows.flatMap((row) => row.cells.map((cell) => cell.scores[which])).filter((value) => value !== null);
    values.sort((a, b) => a - b);
    return [values[Math.floor(values.length / 5)] ?? 0, values.at(-1) ?? 1];
  }

  const cells = [];
  const names = [];

  function build() {
    block.querySelector(".stages").append(...rows.map((row, place) => {
      const name = page.make("button", {type: "button", class: `name ${row.verdict ?? ""}`, title: row.name},
        page.make("span", {class: "words", dir: "auto"}, row.name), page.make("span", {class: "swatch"}));
      name.addEventListener("click", () => {
        if (!pressed.delete(place)) pressed.add(place);
        draw();
      });
      names.push(name);
      const strip = page.make("div", {class: "cells"}, ...row.cells.map((cell) => {
        const button = page.make("button", {type: "button"});
        const tell = () => { words.textContent = describe(row, cell); };
        for (const event of ["click", "focus", "mouseenter"]) button.addEventListener(event, tell);
        cells.push({button, row, cell});
        return button;
      }));
      return page.make("div", {class: "stage-row"}, name, strip);
    }));
  }

  function colourCells() {
    const [low, high] = range();
    for (const {button, row, cell} of cells) {
      const value = cell.scores[which];
      const share = value === null ? 0 : high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 1;
      button.style.setProperty("--share", (SMALLEST[0] + SMALLEST[1] * share).toFixed(3));
      button.classList.toggle("strong", value !== null && share > 0.78);
      button.classList.toggle("empty", value === null);
      button.classList.toggle("chosen", cell.chosen);
      button.setAttribute("aria-label", describe(row, cell));
    }
    block.querySelector(".scale").replaceChildren(`≤ ${shown(low)}`, page.make("span", {class: "ramp"}), shown(high));
    write();
  }

  /** The number in each cell, with as many decimals as it has room; a wide one names its stage and stride too. */
  function write() {
    for (const {button, cell} of cells) {
      const width = button.clientWidth;
      const text = shown(cell.scores[which], width >= 40 ? 3 : 2);
      const short = width < 32 ? text.replace(/^(-?)0\./, "$1.") : text;
      const place = cell.stride && width >= 150 ? `  ${cut(cell.name, 12)} · /${cell.stride}` : "";
      button.textContent = `${short}${place}`;
    }
  }

  function dataset(place) {
    const row = rows[place];
    const {colour, dash} = look(place);
    const over = fields.over.value;
    const kept = row.cells.filter((cell) => over === "depth" || cell.stride);
    const aside = [...pressed].indexOf(place) - (pressed.size - 1) / 2; // so that bars of one place stand side by side
    const spread = Math.min(1, 8 / pressed.size);
    const x = (cell) => over === "depth" ? cell.depth + 0.006 * spread * aside : cell.stride * 1.025 ** (spread * aside);
    return {
      label: row.name,
      cells: kept,
      row,
      ends: kept.map((cell) => cell.low[which] === null || cell.high[which] === null ? null : [cell.low[which], cell.high[which]]),
      data: kept.map((cell) => ({x: x(cell), y: cell.scores[which]})),
      borderColor: colour,
      backgroundColor: kept.map((cell) => cell.chosen ? colour : page.colour("--paper")),
      pointBorderColor: colour,
      pointRadius: kept.map((cell) => cell.chosen ? 7 : 4),
      pointHoverRadius: 8,
      pointStyle: kept.map((cell) => cell.chosen ? "rectRot" : "circle"),
      borderDash: dash,
      borderWidth: 2,
      pointBorderWidth: 2,
      showLine: over === "depth",
      clip: 10,
    };
  }

  function axis(text, more = {}) {
    const [soft, line] = [page.colour("--soft"), page.colour("--line")];
    return {title: {display: true, text, color: soft}, grid: {color: line}, border: {color: line},
      ticks: {color: soft, maxRotation: 0, ...more.ticks}, ...more.scale};
  }

  function drawChart() {
    Chart.getChart(canvas)?.destroy();
    const strides = [...new Set(rows.flatMap((row) => row.cells.map((cell) => cell.stride)).filter(Boolean))].sort((a, b) => a - b);
    const stride = fields.over.value === "stride";
    const only = {callback: (value) => strides.includes(value) ? value : null, autoSkip: false};
    const x = stride
      ? axis("stride of the stage (pixels)", {ticks: only, scale: {type: "logarithmic", min: strides[0] / 1.3, max: strides.at(-1) * 1.3,
        afterBuildTicks: (scale) => { scale.ticks = strides.map((value) => ({value})); }}})
      : axis("relative depth of the stage (1: the last)", {scale: {type: "linear", min: 0, max: 1.03,
        afterBuildTicks: (scale) => { scale.ticks = [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => ({value})); }}});
    const datasets = [...pressed].map(dataset);
    const closer = fields.part.value === "best";
    new Chart(canvas, {
      type: "line",
      data: {datasets},
      plugins: [page.whiskers],
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        layout: {padding: {right: 10}},
        interaction: {mode: "nearest", intersect: false},
        scales: {x, y: axis(scores[which].name, {scale: {type: "linear", grace: "4%", min: closer ? range()[0] : undefined}})},
        plugins: {
          legend: {position: "bottom", labels: {color: page.colour("--ink"), boxWidth: 22, boxHeight: 2, generateLabels: (chart) =>
            chart.data.datasets.map((set, datasetIndex) => ({text: cut(set.label, 40), datasetIndex, fontColor: page.colour("--ink"),
              strokeStyle: set.borderColor, fillStyle: set.borderColor, lineDash: set.borderDash, lineWidth: 2}))}},
          tooltip: {callbacks: {title: (items) => items[0].dataset.label, label: ({dataset: set, dataIndex}) => {
            const cell = set.cells[dataIndex];
            return describe(set.row, cell).slice(set.row.name.length + 2);
          }}},
        },
      },
    });
  }

  function draw() {
    which = Number(fields.score.value);
    block.querySelector(".meaning").textContent = `${title}: ${scores[which].words}`;
    block.querySelector(".which").textContent = `${scores[which].name}, ` +
      `${pressed.size} of ${rows.length} rows; a diamond is a chosen stage, a bar a 95 % interval`;
    names.forEach((name, place) => {
      const on = pressed.has(place);
      name.setAttribute("aria-pressed", String(on));
      const swatch = name.querySelector(".swatch").style;
      swatch.background = on ? look(place).colour : "";
      swatch.borderColor = on ? look(place).colour : "";
    });
    colourCells();
    drawChart();
  }

  block.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  block.querySelector("form").addEventListener("input", () => { words.textContent = ""; draw(); });
  build();
  new ResizeObserver(write).observe(block.querySelector(".stages"));
  page.themed(draw);
});
