"use strict";
(() => {
  const text = (id) => document.getElementById(id).textContent;
  const palette = Object.entries(JSON.parse(text("dark")));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

  async function draw() {
    let source = text("figures");
    if (dark.matches) for (const [light, on] of palette) source = source.replaceAll(light, on);
    const figures = JSON.parse(source);
    for (const place of document.querySelectorAll(".chart")) {
      const { data, layout } = figures[place.dataset.figure];
      await Plotly.react(place, data, layout, config);
    }
    document.documentElement.dataset.ready = Math.round(performance.now());
  }

  function sort(table, column, header) {
    const descending = header.getAttribute("aria-sort") === "ascending";
    const body = table.tBodies[0], rows = [...body.rows].slice(Number(table.dataset.first));
    const compare = (a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      if (x.dataset.value === undefined || y.dataset.value === undefined) return x.textContent.localeCompare(y.textContent);
      return Number(x.dataset.value) - Number(y.dataset.value);
    };
    rows.sort((a, b) => (descending ? -1 : 1) * compare(a, b));
    body.append(...rows);
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  for (const table of document.querySelectorAll(".sortable"))
    [...table.tHead.rows[0].cells].forEach((header, column) => header.addEventListener("click", () => sort(table, column, header)));
  dark.addEventListener("change", draw);
  draw();
})();
