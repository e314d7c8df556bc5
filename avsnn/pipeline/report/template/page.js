// Draws the charts from the data of the page, and saves tables and charts as files.
const charts = JSON.parse(document.getElementById("charts").textContent);

const views = new Map();

// A number that is not known is empty in a chart, and no row of a chart lacks a column.
function rowsOf(chart) {
  return chart.rows.map((row) => Object.fromEntries(chart.keys.map((key, i) => [key, row[i]])));
}

const ruler = document.createElement("canvas").getContext("2d");

function widthOfLongest(names, font) {
  ruler.font = `12px ${font}`;
  return Math.max(0, ...names.map((name) => ruler.measureText(name).width));
}

// Vega reserves the height of a legend before Vega knows the width of the axes. So the number of
// columns and the longest label must not depend on the layout: both follow from the names alone.
function legendOf(chart, width) {
  const encodings = [chart.spec, ...(chart.spec.layer ?? [])].map((one) => one.encoding ?? {});
  const { font } = chart.spec.config;
  const shown = encodings.flatMap((one) => [one.color, one.shape, one.strokeDash, one.opacity]);
  const legends = shown.filter((one) => one?.scale && one.legend !== null);
  const names = legends.flatMap((one) => (one.type === "nominal" ? one.scale.domain : ["0.000"]));
  const rows = encodings.find((one) => one.y?.type === "nominal")?.y;
  const place = rows ? chart.keys.indexOf(rows.field) : -1;
  const labels = place < 0 ? ["100 %"] : [...new Set(chart.rows.map((row) => String(row[place])))];
  const axis = Math.min(widthOfLongest(labels, font), rows?.axis?.labelLimit ?? 150) + 30;
  const free = Math.max(80, width - axis);
  const entry = Math.min(widthOfLongest(names, font), free) + 36;
  return {
    legendColumns: Math.max(1, Math.min(6, Math.floor(free / entry))),
    legendLimit: free - 24,
  };
}

function fit(place, view, width) {
  for (const [name, value] of Object.entries(legendOf(charts[place.dataset.chart], width))) {
    view.signal(name, value);
  }
  view.width(width).resize().run();
}

// A folded chart has no width, so the chart is drawn when a reader unfolds the chart.
function draw() {
  for (const place of document.querySelectorAll("[data-chart]:not(.drawn)")) {
    if (!place.clientWidth) continue;
    place.classList.add("drawn");
    const chart = charts[place.dataset.chart];
    const legend = Object.entries(legendOf(chart, place.clientWidth));
    const params = legend.map(([name, value]) => ({ name, value }));
    const spec = { ...chart.spec, params, datasets: { rows: rowsOf(chart) } };
    vegaEmbed(place, spec, { renderer: "svg", actions: false }).then(
      ({ view }) => {
        views.set(place, view);
        // The place of the chart carries the description, and the table holds the data.
        place.querySelector("svg").setAttribute("aria-hidden", "true");
      },
      (error) => {
        place.textContent = "This chart cannot be drawn here; the table below holds the data.";
        console.error(error);
      },
    );
  }
}

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function csvOf(chart) {
  const cell = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [chart.keys, ...chart.rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

// A file has no style sheet, so the colours of the light page replace the variables.
function svgOf(figure) {
  const light = document.getElementById("style").sheet.cssRules[0].style;
  const drawings = [...figure.querySelectorAll("svg")];
  const svg = (drawings.find((one) => one.clientWidth) ?? drawings[0]).cloneNode(true);
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [key, value] of Object.entries({ width: "100%", height: "100%", fill: "var(--paper)" })) {
    paper.setAttribute(key, value);
  }
  svg.prepend(paper);
  const text = new XMLSerializer().serializeToString(svg);
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => light.getPropertyValue(name).trim());
}

document.addEventListener("click", (event) => {
  const { csv, svg } = event.target.dataset;
  if (csv) save(`${csv}.csv`, "text/csv", csvOf(charts[csv]));
  if (svg) save(`${svg}.svg`, "image/svg+xml", svgOf(document.getElementById(svg)));
});

document.addEventListener("toggle", draw, true);
addEventListener("resize", () => {
  for (const [place, view] of views) if (place.clientWidth) fit(place, view, place.clientWidth);
  draw();
});

// On paper, a column is narrower than on most screens, and a chart that only shrinks has small letters.
const paperWidths = { half: 290, wide: 640, third: 178 };
addEventListener("beforeprint", () => {
  for (const [place, view] of views) {
    const card = place.closest(".card");
    const kind = Object.keys(paperWidths).find((name) => card.classList.contains(name));
    fit(place, view, paperWidths[kind]);
  }
});
addEventListener("afterprint", () => {
  for (const [place, view] of views) if (place.clientWidth) fit(place, view, place.clientWidth);
});
draw();
