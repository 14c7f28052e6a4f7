// Charts by Chart.js, in the colours of the theme, each with a table of its numbers.
page.kind("chart", (block, data) => {
  const COLOURS = ["--blue", "--orange", "--green", "--red", "--purple", "--soft"];

  const axis = (chart, given) => ({
    type: given.names ? "category" : given.log ? "logarithmic" : "linear",
    labels: given.names,
    min: given.min,
    max: given.max,
    grace: given.log ? undefined : chart.kind === "scatter" ? "8%" : 0,
    title: {display: true, text: given.title, color: page.colour("--soft")},
    grid: {color: page.colour("--line")},
    border: {color: page.colour("--line")},
    ticks: {color: page.colour("--soft"), maxRotation: 0, autoSkip: true, autoSkipPadding: 12, precision: given.whole ? 0 : undefined},
  });

  // vertical lines with a word, such as the best epoch
  const marks = (given) => ({
    id: "marks",
    afterDatasetsDraw({ctx, chartArea, scales}) {
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = page.colour("--soft");
      ctx.font = "12px system-ui, sans-serif";
      for (const mark of given) {
        const x = scales.x.getPixelForValue(mark.x);
        ctx.setLineDash([3, 4]);
        ctx.beginPath();
        ctx.moveTo(x, chartArea.top);
        ctx.lineTo(x, chartArea.bottom);
        ctx.stroke();
        const right = x > (chartArea.left + chartArea.right) / 2;
        ctx.textAlign = right ? "right" : "left";
        ctx.fillText(mark.text, x + (right ? -5 : 5), chartArea.top + 12);
      }
      ctx.restore();
    },
  });

  // the words of `labels` beside the points of series that are asked to show them, where they cover no other word
  const words = (chart) => ({
    id: "words",
    afterDatasetsDraw(drawn) {
      const {ctx, chartArea} = drawn;
      const shown = (i) => drawn.isDatasetVisible(i) ? drawn.getDatasetMeta(i).data : [];
      const own = (series, {x, y}, j) => { // the box of a point with its interval
        const [low, high] = (series.ends?.[j] ?? []).map((value) => drawn.scales.y.getPixelForValue(value));
        return [x - 6, (high ?? y - 5) - 1, x + 6, (low ?? y + 5) + 1];
      };
      const taken = chart.series.flatMap((series, i) => series.line ? [] : shown(i).map((point, j) => own(series, point, j)));
      const free = ([left, top, right, bottom]) => left >= chartArea.left && right <= chartArea.right && top >= chartArea.top &&
        !taken.some((box) => left < box[2] && right > box[0] && top < box[3] && bottom > box[1]);
      ctx.save();
      ctx.fillStyle = page.colour("--ink");
      ctx.font = "12px system-ui, sans-serif";
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      chart.series.forEach((series, i) => series.named && shown(i).forEach((point, j) => {
        if (!series.named[j]) return;
        const width = ctx.measureText(series.labels[j]).width;
        const [, over, , below] = own(series, point, j);
        const middle = Math.max(chartArea.left, Math.min(chartArea.right - width, point.x - width / 2));
        const [right, left] = [point.x + 9, point.x - 9 - width];
        const places = [[right, point.y], [left, point.y], [middle, over - 8], [middle, below + 8], [right, point.y - 13],
          [right, point.y + 13], [left, point.y - 13], [left, point.y + 13]];
        for (const [x, y] of places) {
          const box = [x, y - 7, x + width, y + 7];
          if (!free(box)) continue;
          taken.push(box);
          ctx.fillText(series.labels[j], x, y);
          break;
        }
      }));
      ctx.restore();
    },
  });

  const dataset = (chart, series, i) => {
    const colour = page.colour(series.colour ?? COLOURS[i % COLOURS.length]);
    const many = series.points.length > 40;
    return {
      type: chart.kind === "bar" && !series.line ? "bar" : "line",
      label: series.name,
      ends: series.ends,
      data: series.points.map(([x, y]) => ({x, y})),
      borderColor: colour,
      backgroundColor: colour,
      borderDash: series.dashed ? [5, 4] : [],
      borderWidth: 2,
      showLine: series.line ?? chart.kind !== "scatter",
      stepped: series.stepped ?? false,
      pointRadius: series.line && chart.kind !== "line" ? 0 : chart.kind === "scatter" ? 5 : many ? 0 : 3,
      pointHoverRadius: 6,
      spanGaps: false,
      clip: 8,
    };
  };

  const tooltip = (chart) => ({
    callbacks: {
      title: (items) => {
        const labels = chart.series[items[0].datasetIndex].labels;
        return labels ? labels[items[0].dataIndex] : `${chart.x.title} ${items[0].label}`;
      },
      label: (item) => {
        const x = chart.kind === "scatter" ? `${chart.x.title} ${page.number(item.parsed.x)}, ` : "";
        return `${x}${item.dataset.label}: ${page.number(item.parsed.y)}`;
      },
    },
  });

  const draw = (canvas, chart) => {
    Chart.getChart(canvas)?.destroy();
    new Chart(canvas, {
      type: chart.kind === "bar" ? "bar" : "line",
      data: {datasets: chart.series.map((series, i) => dataset(chart, series, i))},
      plugins: [page.whiskers, marks(chart.marks ?? []), words(chart)],
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: {mode: chart.kind === "scatter" ? "nearest" : "index", intersect: chart.kind === "scatter"},
        scales: {x: axis(chart, chart.x), y: axis(chart, chart.y)},
        plugins: {
          legend: {display: chart.series.length > 1, labels: {color: page.colour("--ink"), boxWidth: 14, boxHeight: 3}},
          tooltip: tooltip(chart),
        },
      },
    });
  };

  const numbers = (chart) => {
    const titles = ["", chart.x.title, chart.y.title];
    const head = page.make("tr", {}, ...titles.map((title) => page.make("th", {scope: "col"}, title)));
    const rows = chart.series.flatMap((series) => series.points.map(([x, y], i) => page.make("tr", {},
      page.make("td", {dir: "auto"}, series.labels ? `${series.name}: ${series.labels[i]}` : series.name),
      page.make("td", {class: "number"}, typeof x === "string" ? x : page.number(x)),
      page.make("td", {class: "number"}, page.number(y)))));
    return page.make("table", {}, page.make("thead", {}, head), page.make("tbody", {}, ...rows));
  };

  const figures = [...block.querySelectorAll("figure")];
  data.charts.forEach((chart, i) => {
    const details = figures[i].querySelector("details");
    details.addEventListener("toggle", () => {
      const place = details.querySelector(".scroll");
      if (!place.firstChild) place.append(numbers(chart));
    });
    page.themed(() => draw(figures[i].querySelector("canvas"), chart));
  });
});
