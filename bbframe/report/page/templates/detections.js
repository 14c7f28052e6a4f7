// Test images with their true and predicted objects: a score slider, switches for kinds and classes, one image enlarged.
page.kind("detections", (block, data) => {
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const [RIGHT, WRONG_CLASS, BADLY_PLACED, MISSED] = [0, 1, 2, data.outcomes.length - 1];
  // on photos, so the same in both themes: right, wrong class, badly placed, both, duplicate, background, missed
  const COLOURS = ["#1cc88a", "#ff7ac6", "#ffa500", "#b388ff", "#56b4e9", "#f0e442", "#ff4d4d"];
  const STEP = 24;
  const hidden = {outcomes: new Set(), classes: new Set(), layers: new Set()};
  const find = (selector) => block.querySelector(selector);
  const [slider, output, select, dialog] = ["input", "output", "select", "dialog"].map(find);
  let count = STEP;
  let order = [];
  let opened = 0;

  const draw = (tag, attributes, ...children) => {
    const element = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const className = (label) => data.classes[label];
  const isolated = (text) => `\u2068${text}\u2069`;  // a name from right to left does not turn what stands beside it
  const score = (found) => (found.score / 1000).toFixed(2);

  /** What an image shows at the slider's score: {found, missed, counts, errors, surest}, classes that are off left out. */
  function look(image) {
    const least = 10 * Number(slider.value);
    const found = image.found.filter((one) => one.score >= least);
    const shown = new Set(found.filter((one) => one.outcome <= BADLY_PLACED).map((one) => one.shows));
    const on = (one) => !hidden.classes.has(one.label);
    const missed = image.truth.filter((one, i) => !one.crowd && !shown.has(i) && on(one));
    const counts = data.outcomes.map((_, outcome) => found.filter((one) => one.outcome === outcome && on(one)).length);
    counts[MISSED] = missed.length;
    const drawn = found.filter((one) => on(one) && !hidden.outcomes.has(one.outcome));
    const wrong = drawn.filter((one) => one.outcome !== RIGHT);
    return {
      image, found: drawn, counts,
      missed: new Set(hidden.outcomes.has(MISSED) ? [] : missed),
      errors: wrong.length + (hidden.outcomes.has(MISSED) ? 0 : missed.length),
      surest: Math.max(-1, ...wrong.map((one) => one.score)),
    };
  }

  /** The photo with boxes; `width` is what it takes on the screen in pixels. */
  function picture({image, found, missed}, width) {
    const unit = Math.max(image.width / width, image.height / 560);
    const size = 12 * unit;
    const layers = (name) => !hidden.layers.has(name);
    const root = draw("svg", {viewBox: `0 0 ${image.width} ${image.height}`, role: "img"});
    root.setAttribute("aria-label", described({found, missed}));
    if (image.photo) {
      const small = Math.max(image.width, image.height) < 200 ? "small" : "";
      root.append(draw("image", {href: image.photo, width: image.width, height: image.height, class: small}));
    }
    const texts = [];
    const shape = (one, colour, dashes, text) => {
      const [left, top, right, bottom] = one.box;
      if (one.outline && layers("masks")) {
        const path = one.outline.map((ring) => `M${ring.join(" ")}Z`).join("");
        root.append(draw("path", {d: path, class: "area", fill: dashes ? "none" : colour, stroke: colour,
          "stroke-dasharray": dashes}));
      }
      const box = {x: left, y: top, width: right - left, height: bottom - top, class: "shape"};
      if (dashes) root.append(draw("rect", {...box, stroke: "#000", "stroke-width": 3, opacity: 0.5}));
      root.append(draw("rect", {...box, stroke: colour, "stroke-width": 2, "stroke-dasharray": dashes}));
      if (!text || !layers("labels")) return;
      const y = top - 0.3 * size < size ? Math.min(top + 1.05 * size, image.height - 2 * unit) : top - 0.3 * size;
      const end = left > 0.7 * image.width;
      texts.push(draw("text", {x: end ? right : left, y, fill: colour, "font-size": size, "stroke-width": 0.28 * size,
        "text-anchor": end ? "end" : "start"}, text));
    };
    if (layers("true boxes")) {
      for (const one of image.truth) {
        if (hidden.classes.has(one.label)) continue;
        const lost = missed.has(one);
        shape(one, lost ? COLOURS[MISSED] : one.crowd ? "#aaaaaa" : "#ffffff", "5 4",
          lost ? `${isolated(className(one.label))} missed` : one.crowd ? "crowd" : "");
      }
    }
    for (const one of [...found].reverse()) {
      shape(one, COLOURS[one.outcome], "", `${isolated(className(one.label))} ${score(one)}`);
    }
    root.append(...texts);
    return root;
  }

  /** How many of each outcome are drawn, as a text. */
  function described({found, missed}) {
    const counts = data.outcomes.map(({name}, outcome) =>
      [outcome === MISSED ? missed.size : found.filter((one) => one.outcome === outcome).length, name]);
    return counts.filter(([number]) => number).map((pair) => pair.join(" ")).join(", ") || "nothing";
  }

  /** Why an image has no photo, null when it has one. */
  function whyEmpty(image) {
    return image.why ? page.make("span", {class: "file"}, `no photo: ${image.why}`) : null;
  }

  function update() {
    output.textContent = (slider.value / 100).toFixed(2);
    slider.setAttribute("aria-valuetext", output.textContent);
    const seen = data.images.map(look);
    const total = data.outcomes.map((_, outcome) => seen.reduce((sum, one) => sum + one.counts[outcome], 0));
    for (const [outcome, button] of chips.outcomes.entries()) button.querySelector(".count").textContent = total[outcome];
    const keys = {
      errors: (a, b) => b.errors - a.errors,
      sure: (a, b) => b.surest - a.surest,
      name: (a, b) => a.image.name.localeCompare(b.image.name, undefined, {numeric: true}),
    };
    order = seen.sort(keys[select.value]);
    const wrong = total.reduce((sum, one) => sum + one, 0) - total[RIGHT] - total[MISSED];
    const objects = data.images.reduce((sum, image) =>
      sum + image.truth.filter((one) => !one.crowd && !hidden.classes.has(one.label)).length, 0);
    const share = (part, whole) => whole ? page.percent(part / whole) : "–";
    find(".summary").textContent = `In these ${data.images.length} images ${share(total[RIGHT], total[RIGHT] + wrong)} ` +
      `of the detections are right (precision), and ${share(total[RIGHT], objects)} of the objects are found (recall).`;
    render();
  }

  function render() {
    const place = find(".pictures");
    place.replaceChildren(...order.slice(0, count).map((seen, i) => {
      const open = page.make("button", {type: "button", class: "open", "aria-label": `enlarge ${seen.image.name}`},
        picture(seen, 250));
      open.addEventListener("click", () => enlarge(i));
      return page.make("figure", {}, open, page.make("figcaption", {},
        page.make("span", {class: "file", dir: "auto"}, seen.image.name), described(seen),
        whyEmpty(seen.image)));
    }));
    find(".more").hidden = order.length <= count;
  }

  function enlarge(i) {
    opened = (i + order.length) % order.length;
    const seen = order[opened];
    dialog.querySelector(".title").textContent = seen.image.name;
    if (!dialog.open) dialog.showModal();
    const wide = dialog.querySelector(".large").clientWidth;
    const high = 0.72 * innerHeight * seen.image.width / seen.image.height;
    dialog.querySelector(".large").replaceChildren(picture(seen, Math.min(wide, high)));
    const line = (colour, text) => {
      const swatch = page.make("span", {class: "swatch"});
      swatch.style.setProperty("--swatch", colour);
      return page.make("li", {}, swatch, text);
    };
    dialog.querySelector(".objects").replaceChildren(
      ...seen.found.map((one) => {
        const truth = seen.image.truth[one.shows];
        const is = one.outcome === WRONG_CLASS && truth ? `, is ${isolated(className(truth.label))}` : "";
        return line(COLOURS[one.outcome], `${isolated(className(one.label))} ${score(one)}: ${data.outcomes[one.outcome].name}${is}`);
      }),
      ...[...seen.missed].map((one) => line(COLOURS[MISSED], `${isolated(className(one.label))}: missed`)));
  }

  /** Buttons that switch something on and off; returns them in their order. */
  function switches(selector, off, entries) {
    const buttons = entries.map(({name, meaning, key, colour, counted}) => {
      const swatch = colour ? page.make("span", {class: "swatch"}) : null;
      swatch?.style.setProperty("--swatch", colour);
      const button = page.make("button", {type: "button", "aria-pressed": "true", title: meaning}, swatch,
        page.make("span", {dir: "auto"}, name), counted ? page.make("span", {class: "count"}) : null);
      button.addEventListener("click", () => {
        const gone = off.has(key);
        off[gone ? "delete" : "add"](key);
        button.setAttribute("aria-pressed", String(gone));
        update();
      });
      return button;
    });
    find(selector).append(...buttons);
    return buttons;
  }

  const chips = {
    outcomes: switches(".outcomes", hidden.outcomes, data.outcomes.map(({name, meaning}, key) =>
      ({name, meaning, key, colour: COLOURS[key], counted: true}))),
    classes: switches(".classes", hidden.classes, data.classes.map((name, key) => ({name, key}))),
  };
  switches(".layers", hidden.layers, ["true boxes", "labels", ...(data.masks ? ["masks"] : [])].map((name) =>
    ({name, key: name})));

  /** Two buttons before the classes that switch all of them. */
  for (const [text, off] of [["None", true], ["All", false]]) {
    const button = page.make("button", {type: "button", class: "every"}, text);
    button.addEventListener("click", () => {
      data.classes.forEach((_, label) => hidden.classes[off ? "add" : "delete"](label));
      for (const chip of chips.classes) chip.setAttribute("aria-pressed", String(!off));
      update();
    });
    find(".classes").prepend(button);
  }

  let waiting = 0;
  slider.addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(update);
  });
  select.addEventListener("change", update);
  find(".more").addEventListener("click", () => { count += STEP; render(); });
  find(".close").addEventListener("click", () => dialog.close());
  find(".before").addEventListener("click", () => enlarge(opened - 1));
  find(".after").addEventListener("click", () => enlarge(opened + 1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") enlarge(opened - 1);
    if (event.key === "ArrowRight") enlarge(opened + 1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  update();
});
