// What the page does where scripts run: sort, filter, say values, copy. All of it is there to read
// without them, and in print. Nothing is loaded, sent or kept.
"use strict";

/** The first click sorts numbers from the largest and text from A, the next turns round, the third undoes. */
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const unsorted = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const isNumber = head.dataset.sort !== "text";
    const turns = isNumber ? ["descending", "ascending"] : ["ascending", "descending"];
    button.addEventListener("click", () => {
      const turn = turns[turns.indexOf(head.getAttribute("aria-sort")) + 1];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (turn) head.setAttribute("aria-sort", turn);
      body.append(...(turn ? sorted(unsorted, column, isNumber, turn) : unsorted));
    });
  });
}

/** Rows in order; those that have no value come last, whichever way it goes. */
function sorted(rows, column, isNumber, turn) {
  const sign = turn === "ascending" ? 1 : -1;
  const keyed = rows.map((row) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return { row, text, missing: text === "" || (isNumber && Number.isNaN(Number(text))) };
  });
  keyed.sort((a, b) => {
    if (a.missing || b.missing) return a.missing - b.missing;
    if (isNumber) return sign * (Number(a.text) - Number(b.text));
    return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
  });
  return keyed.map(({ row }) => row);
}

/** Shows the rows that hold every word that was typed. */
function makeFilter(tools) {
  const rows = [...document.getElementById(tools.dataset.table).tBodies[0].rows];
  const texts = rows.map((row) =>
    [row.textContent, ...[...row.querySelectorAll("[title]")].map((e) => e.title)]
      .join(" ")
      .toLowerCase(),
  );
  const input = tools.querySelector("input");
  const count = tools.querySelector("output");
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      shown += !row.hidden;
    });
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  input.addEventListener("input", apply);
  tools.hidden = false;
  apply(); // browsers keep what was typed before a reload
}

/** A curve answers with all values of an epoch, a scatter with what lies at the nearest point. */
function makeTips(plot) {
  const dots = [...plot.querySelectorAll(".dot")].map((element) => {
    const [x, y] = element.getAttribute("d").match(/-?[\d.]+/g).map(Number);
    const title = element.querySelector("title");
    const text = title.textContent;
    title.remove(); // the browser's own tip would stand over ours
    return { element, x, y, text };
  });
  if (!dots.length) return;
  const scatter = plot.classList.contains("scatter");
  const near = (a, b) => (scatter ? Math.hypot(a.x - b.x, a.y - b.y) < 1.5 : a.x === b.x);
  const stops = [];
  for (const dot of dots) {
    const stop = stops.find(([first]) => near(first, dot));
    if (stop) stop.push(dot);
    else stops.push([dot]);
  }
  stops.sort((a, b) => a[0].x - b[0].x);
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  plot.append(tip);
  let current = -1;

  const show = (index) => {
    current = index;
    const stop = stops[index] ?? [];
    for (const dot of dots) dot.element.classList.toggle("near", stop.includes(dot));
    tip.classList.toggle("shown", stop.length > 0);
    if (!stop.length) return;
    tip.replaceChildren(
      ...stop.flatMap((dot) => dot.text.split("\n")).map((line) => {
        const row = document.createElement("p");
        row.textContent = line;
        return row;
      }),
    );
    const [{ x }] = stop;
    tip.style.left = `${x}%`;
    tip.style.top = `${Math.min(...stop.map((dot) => dot.y))}%`;
    tip.style.setProperty("--shift", `${-Math.min(Math.max(x, 4), 96)}%`);
  };
  const nearest = (event) => {
    const box = plot.getBoundingClientRect();
    const left = event.clientX - box.left;
    const top = event.clientY - box.top;
    const far = stops.map(([{ x, y }]) =>
      Math.hypot((x / 100) * box.width - left, scatter ? (y / 100) * box.height - top : 0),
    );
    return far.indexOf(Math.min(...far));
  };
  const label = plot.querySelector("svg").getAttribute("aria-label");
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", `${label}. The arrow keys go from value to value.`);
  plot.addEventListener("pointermove", (event) => show(nearest(event)));
  plot.addEventListener("pointerdown", (event) => show(nearest(event)));
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(-1));
  plot.addEventListener("focus", () => current < 0 && show(stops.length - 1));
  plot.addEventListener("blur", () => show(-1));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      show(Math.min(Math.max(current + step, 0), stops.length - 1));
    } else if (event.key === "Escape") {
      show(-1);
    }
  });
}

function makeCopy(code) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    button.textContent = (await copied(code.querySelector("code"))) ? "Copied" : "Press Ctrl-C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  code.prepend(button);
}

/** Copies; where the browser forbids it the text is at least selected. */
async function copied(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".tools").forEach(makeFilter);
document.querySelectorAll(".plot").forEach(makeTips);
document.querySelectorAll(".snippet").forEach(makeCopy);
