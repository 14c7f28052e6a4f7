// The embedding map: a point an image, coloured by its class, with its photo where the pointer is.
page.kind("embedding_map", (block, {views, labels, names, thumbnails, classes}) => {
  const COLOURS = 10;
  const STYLES = ["circle", "triangle", "rect", "rectRot", "cross", "star"]; // after ten classes, another shape
  const TINY = 48; // pixels: a photo no larger is enlarged pixel by pixel
  const form = block.querySelector("form");
  const canvas = block.querySelector(".map figure canvas");
  const hover = block.querySelector(".hover");
  const legend = block.querySelector(".classes");
  const members = new Map();
  labels.forEach((label, i) => {
    if (!members.has(label)) members.set(label, []);
    members.get(label).push(i);
  });
  const order = [...members.keys()].sort((a, b) => a - b);
  const off = new Set();
  let lit = null; // the class that the pointer is on in the legend
  let chart = null;

  const place = (label) => order.indexOf(label);
  const colour = (label) => {
    const probe = page.make("span", {hidden: true});
    probe.style.color = `var(--map${place(label) % COLOURS})`;
    block.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const style = (label) => STYLES[Math.floor(place(label) / COLOURS) % STYLES.length];
  const isOpen = (label) => ["cross", "star"].includes(style(label));
  const className = (label) => classes[label] ?? `class ${label}`;
  const faded = (name, share) => name.replace(/^rgb\((.*)\)$/, (_, parts) => `rgb(${parts.replaceAll(",", " ")} / ${share})`);

  function paint(sets) {
    for (const set of sets) {
      const plain = colour(set.label);
      const share = lit === null ? 0.75 : set.label === lit ? 1 : 0.08;
      set.backgroundColor = faded(plain, share);
      set.borderColor = isOpen(set.label) ? faded(plain, share) : page.colour("--paper");
      set.borderWidth = isOpen(set.label) ? 1.5 : 0.5;
      set.pointRadius = lit !== null && set.label === lit ? 6 : labels.length > 900 ? 3.5 : 4.5;
      set.order = set.label === lit ? -1 : 0;
    }
  }

  function show({chart: {canvas: drawn}, tooltip}) {
    if (!tooltip.opacity || !tooltip.dataPoints?.length) {
      hover.hidden = true;
      return;
    }
    const {dataset, dataIndex} = tooltip.dataPoints[0];
    const i = dataset.members[dataIndex];
    const photo = thumbnails[i] ? page.make("img", {src: thumbnails[i], alt: ""}) : null;
    if (photo) photo.addEventListener("load", () => photo.classList.toggle("tiny", Math.max(photo.naturalWidth, photo.naturalHeight) <= TINY));
    hover.replaceChildren(...[photo, page.make("div", {class: "class", dir: "auto"}, className(dataset.label)),
      names[i] ? page.make("div", {class: "file", dir: "auto"}, names[i]) : null].filter(Boolean));
    hover.hidden = false;
    const right = tooltip.caretX > drawn.clientWidth / 2;
    const low = tooltip.caretY > drawn.clientHeight / 2;
    hover.style.left = right ? "" : `${tooltip.caretX + 12}px`;
    hover.style.right = right ? `${drawn.clientWidth - tooltip.caretX + 12}px` : "";
    hover.style.top = low ? "" : `${tooltip.caretY + 8}px`;
    hover.style.bottom = low ? `${drawn.clientHeight - tooltip.caretY + 8}px` : "";
  }

  function axis(text) {
    return {title: {display: true, text, color: page.colour("--soft")}, grid: {color: page.colour("--line")}, grace: "3%",
      border: {color: page.colour("--line")}, ticks: {display: false}};
  }

  function draw() {
    const view = views[Number(form.elements.view?.value ?? 0)];
    const datasets = order.map((label) => ({
      label,
      members: members.get(label),
      data: members.get(label).map((i) => ({x: view.points[i][0], y: view.points[i][1]})),
      pointStyle: style(label),
      pointHoverRadius: 8,
      hidden: off.has(label),
      clip: 8,
    }));
    paint(datasets);
    Chart.getChart(canvas)?.destroy();
    hover.hidden = true;
    chart = new Chart(canvas, {
      type: "scatter",
      data: {datasets},
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: {mode: "nearest", intersect: true},
        scales: {x: axis(view.axes[0]), y: axis(view.axes[1])},
        plugins: {legend: {display: false}, tooltip: {enabled: false, external: show}},
      },
    });
    for (const button of legend.children) sample(button.querySelector("canvas"), Number(button.dataset.label));
  }

  /** The mark of a class in the legend. */
  function sample(small, label) {
    const scale = devicePixelRatio || 1;
    small.width = small.height = 14 * scale;
    const pen = small.getContext("2d");
    pen.scale(scale, scale);
    pen.fillStyle = pen.strokeStyle = colour(label);
    pen.lineWidth = isOpen(label) ? 1.5 : 0.01;
    Chart.helpers.drawPoint(pen, {pointStyle: style(label), radius: 5.5, borderWidth: 1, rotation: 0}, 7, 7);
  }

  function update() {
    if (off.has(lit)) lit = null;
    order.forEach((label, i) => chart.setDatasetVisibility(i, !off.has(label)));
    for (const button of legend.children) button.setAttribute("aria-pressed", String(!off.has(Number(button.dataset.label))));
    paint(chart.data.datasets);
    chart.update();
  }

  legend.append(...order.map((label) => {
    const button = page.make("button", {type: "button", "aria-pressed": "true", "data-label": label},
      page.make("canvas", {"aria-hidden": "true"}), page.make("span", {class: "name", dir: "auto"}, className(label)),
      page.make("span", {class: "n"}, members.get(label).length));
    button.addEventListener("click", () => {
      if (!off.delete(label)) off.add(label);
      update();
    });
    const light = (to) => () => {
      lit = off.has(label) ? null : to;
      paint(chart.data.datasets);
      chart.update();
    };
    button.addEventListener("mouseenter", light(label));
    button.addEventListener("mouseleave", light(null));
    return button;
  }));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", draw);
  form.elements.all.addEventListener("click", () => { off.clear(); update(); });
  form.elements.none.addEventListener("click", () => { for (const label of order) off.add(label); update(); });
  canvas.addEventListener("mouseleave", () => { hover.hidden = true; });
  page.themed(draw);
});
