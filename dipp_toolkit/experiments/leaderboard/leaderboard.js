// Sorting, choosing and copying; the page is complete without them.
for (const table of document.querySelectorAll("table.board")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.better === "lower" || head.dataset.text ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[index].dataset.value;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (head.dataset.text) return sign * x.localeCompare(y);
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (Number(x) - Number(y));
      });
      table.tBodies[0].append(...rows);
      table.querySelectorAll(".rank").forEach((one) => {
        const ranks = JSON.parse(one.dataset.ranks);
        if (head.dataset.figure in ranks) one.textContent = ranks[head.dataset.figure];
      });
    });
  });
}
for (const group of document.querySelectorAll("[data-choices]")) {
  const selects = [...group.querySelectorAll("select")];
  const update = () => {
    const wanted = selects.map((one) => one.value).join("|");
    group.querySelectorAll("[data-choice]").forEach((one) => {
      one.hidden = one.dataset.choice !== wanted;
    });
    const none = group.querySelector("[data-none]");
    if (none) none.hidden = [...group.querySelectorAll("[data-choice]")].some((one) => !one.hidden);
  };
  selects.forEach((one) => one.addEventListener("change", update));
  group.querySelectorAll(".choose").forEach((one) => { one.hidden = false; });
  update();
}
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
