"use strict";
(() => {
  const text = (id) => document.getElementById(id).textContent;
  const palette = Object.entries(JSON.parse(text("dark")));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"; // base 85 of RFC 1924

  function bytes(packed) {
    const value = Object.fromEntries([...digits].map((digit, i) => [digit, i]));
    const words = new DataView(new ArrayBuffer(4 * Math.ceil(packed.length / 5)));
    for (let i = 0; 5 * i < packed.length; i++) {
      let word = 0;
      for (let k = 5 * i; k < 5 * i + 5; k++) word = 85 * word + value[packed[k] ?? "~"];
      words.setUint32(4 * i, word);
    }
    return new Uint8Array(words.buffer, 0, Math.floor((4 * packed.length) / 5));
  }

  async function load() {
    const stream = new Blob([bytes(text("library"))]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text(); // the policy knows its digest
    document.body.append(script);
  }

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
  if (document.getElementById("library")) load().then(draw).then(() => dark.addEventListener("change", draw));
})();
