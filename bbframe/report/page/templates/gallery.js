// The tested images: ordered and filtered by what the network said, and one of them in large.
page.kind("gallery", (block, {classes, images, total}) => {
  const STEP = 48; // images at a time
  const form = block.querySelector("form");
  const fields = form.elements;
  const shots = block.querySelector(".shots");
  const more = block.querySelector(".more");
  const dialog = block.querySelector("dialog");
  const items = images.map(({facts, ...item}) => {
    const [label, predicted, probability, trueProbability, loss] = facts;
    return {...item, label, predicted, probability, trueProbability, loss};
  });
  const orders = {
    worst: (a, b) => b.loss - a.loss,
    best: (a, b) => a.loss - b.loss,
    sure: (a, b) => b.probability - a.probability,
    unsure: (a, b) => a.probability - b.probability,
    name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  };
  let found = [];
  let drawn = 0;
  let open = 0;

  function options(select, column) {
    const counts = new Map();
    for (const item of items) counts.set(item[column], (counts.get(item[column]) ?? 0) + 1);
    select.append(page.make("option", {value: ""}, "any"), ...[...counts.keys()].sort((a, b) => a - b).map((label) =>
      page.make("option", {value: label}, `${classes[label]} (${counts.get(label)})`)));
  }

  /** The heat over the part of the photo that the network saw, from transparent to red. */
  function overlay({cells, box}) {
    const small = page.make("canvas", {width: cells[0].length, height: cells.length});
    const context = small.getContext("2d");
    const pixels = context.createImageData(small.width, small.height);
    cells.flat().forEach((value, i) => pixels.data.set([255, 230 - 0.8 * value, 60 - 0.2 * value, value], 4 * i));
    context.putImageData(pixels, 0, 0);
    const large = page.make("canvas", {width: 160, height: 160, "aria-hidden": "true"});
    const pen = large.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, 160, 160);
    const percent = (share) => `${100 * share}%`;
    large.style.left = percent(box[0]);
    large.style.top = percent(box[1]);
    large.style.width = percent(box[2] - box[0]);
    large.style.height = percent(box[3] - box[1]);
    return large;
  }

  function photo(item, heated) {
    const frame = page.make("span", {class: "frame"});
    if (!item.photo) {
      frame.append(page.make("span", {class: "absent"}, item.why ?? "no photo"));
      return frame;
    }
    const [width, height] = item.size;
    const large = Math.max(width, height);
    const image = page.make("img", {src: item.photo, alt: item.name, class: large <= 48 ? "tiny" : false});
    const holder = page.make("span", {class: "photo"}, image, heated && item.heat ? overlay(item.heat) : null);
    holder.style.width = `${100 * width / large}%`;
    holder.style.height = `${100 * height / large}%`;
    frame.append(holder);
    return frame;
  }

  const isRight = (item) => item.label === item.predicted;
  const heated = () => fields.heat?.getAttribute("aria-pressed") === "true";

  function shot(item, place) {
    const right = isRight(item);
    const button = page.make("button", {type: "button", class: `shot ${right ? "right" : "wrong"}`}, photo(item, heated()),
      page.make("span", {class: "words"},
        page.make("span", {class: "answer", dir: "auto"}, `${right ? "✓" : "✗"} ${classes[item.predicted]}, ${page.percent(item.probability, 0)}`),
        right ? null : page.make("span", {class: "truth", dir: "auto"}, `is ${classes[item.label]}, ${page.percent(item.trueProbability, 1)}`),
        page.make("span", {class: "loss"}, `loss ${page.number(item.loss, 3)}`)));
    button.addEventListener("click", () => enlarge(place));
    return button;
  }

  function extend() {
    const next = found.slice(drawn, drawn + STEP);
    shots.append(...next.map((item, i) => shot(item, drawn + i)));
    drawn += next.length;
    more.hidden = drawn >= found.length;
  }

  function update() {
    for (const input of form.querySelectorAll('input[type="range"]')) input.parentElement.querySelector(".now").textContent = `${input.value} %`;
    const chosen = (select, value) => select.value === "" || Number(select.value) === value;
    const [least, most] = [Number(fields.least.value) / 100, Number(fields.most.value) / 100];
    const answers = fields.answers.value;
    found = items.filter((item) => chosen(fields.label, item.label) && chosen(fields.predicted, item.predicted) &&
      (answers === "" || isRight(item) === (answers === "right")) && item.probability >= least && item.probability <= most);
    found.sort(orders[fields.order.value]);
    drawn = 0;
    shots.replaceChildren();
    block.querySelector(".found").textContent = found.length ? `${found.length} image${found.length === 1 ? "" : "s"}` :
      `None of the ${items.length} images in this page (of ${total} tested) is like that.`;
    extend();
  }

  function enlarge(place) {
    open = place;
    const item = found[place];
    const right = isRight(item);
    const facts = [
      ["predicted", `${classes[item.predicted]}, probability ${page.number(item.probability)}`, right ? "right" : "wrong"],
      ["true class", `${classes[item.label]}, probability ${page.number(item.trueProbability)}`],
      ["loss", page.number(item.loss)],
      ["file", item.name],
    ];
    dialog.querySelector(".inside").replaceChildren(
      page.make("h3", {dir: "auto"}, `${place + 1} of ${found.length}`),
      page.make("div", {class: "pair"}, photo(item, false), item.heat ? photo(item, true) : null),
      page.make("dl", {class: "facts"}, ...facts.map(([name, value, kind]) => page.make("div", {},
        page.make("dt", {}, name), page.make("dd", {dir: "auto", class: kind ?? false}, value)))));
    const [previous, next] = ["previous", "next"].map((name) => dialog.querySelector(`[name="${name}"]`));
    previous.disabled = place === 0;
    next.disabled = place === found.length - 1;
    if (!dialog.open) dialog.showModal();
  }

  const step = (by) => { if (found[open + by]) enlarge(open + by); };
  dialog.querySelector('[name="previous"]').addEventListener("click", () => step(-1));
  dialog.querySelector('[name="next"]').addEventListener("click", () => step(1));
  dialog.querySelector('[name="close"]').addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", update);
  fields.all.addEventListener("click", () => {
    form.reset();
    update();
  });
  fields.heat?.addEventListener("click", () => {
    fields.heat.setAttribute("aria-pressed", String(!heated()));
    update();
  });
  more.addEventListener("click", extend);
  document.addEventListener("show-images", ({detail: {label, predicted}}) => {
    form.reset();
    const set = (select, value) => {
      if (![...select.options].some((option) => option.value === String(value))) select.append(page.make("option", {value}, `${classes[value]} (0)`));
      select.value = String(value);
    };
    set(fields.label, label);
    set(fields.predicted, predicted);
    update();
    block.closest("section").scrollIntoView();
    page.say(block.querySelector(".found").textContent);
  });

  options(fields.label, "label");
  options(fields.predicted, "predicted");
  update();
});
