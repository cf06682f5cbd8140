"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const config = { displayModeBar: false, responsive: true };
  const drawn = new Set();

  // Plotly knows no custom properties: what they stand for now goes in.
  const resolved = (value, style, key = "") => {
    if (typeof value === "string") {
      const name = key.includes("color") && /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((one) => resolved(one, style, key));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, one]) => [name, resolved(one, style, name)]),
    );
  };

  const draw = (place) => {
    drawn.add(place);
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = resolved(specs[Number(place.dataset.chart)], style);
    Plotly.react(place, data, layout, config);
  };

  // A phone draws what it shows, not fifty charts at once; paper shows all.
  const places = [...document.querySelectorAll(".chart")];
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "800px" },
  );
  places.forEach((place) => watcher.observe(place));
  addEventListener("beforeprint", () => {
    places.filter((place) => !drawn.has(place)).forEach(draw);
  });
  dark.addEventListener("change", () => drawn.forEach(draw));

  const compared = new Intl.Collator("en", { numeric: true }).compare;

  // Rows without a value stay below, whichever way the others go.
  const sort = (header) => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    const { cells } = header.parentElement;
    for (const cell of cells) cell.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = header.closest("table").tBodies[0];
    const numeric = header.classList.contains("number");
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[header.cellIndex];
      if (!numeric) return { row, key: cell.lastChild ? cell.lastChild.textContent.trim() : "" };
      return { row, key: "value" in cell.dataset ? Number(cell.dataset.value) : null };
    });
    const order = (a, b) => (numeric ? a.key - b.key : compared(a.key, b.key));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return descending ? order(b, a) : order(a, b);
    });
    body.append(...keyed.map(({ row }) => row));
  };

  for (const header of document.querySelectorAll(".sortable thead th")) {
    header.querySelector("button").addEventListener("click", () => sort(header));
  }
})();
