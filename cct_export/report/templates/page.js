"use strict";
(() => {
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
