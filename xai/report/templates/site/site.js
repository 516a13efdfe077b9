"use strict";
// The site in the browser: tables that sort and filter, details of a number, charts, the gallery. Whatever comes from a
// run is text: it goes into the page by textContent alone.

const held = document.getElementById("data");
const data = held ? JSON.parse(held.textContent) : {};
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// What lies in files beside the page comes as scripts, for a page from the disk may read nothing else.
const site = { given: {}, take: (name, content) => site.given[name](content) };
const loaded = {};
function load(source, name) {
  loaded[name] ??= new Promise((resolve, reject) => {
    site.given[name] = resolve;
    const script = element("script", { src: source, onerror: () => reject(new Error(`${source} cannot be read`)) });
    document.head.append(script);
  });
  return loaded[name];
}
function plotly() {
  loaded.plotly ??= new Promise((resolve, reject) => {
    document.head.append(element("script", { src: "assets/plotly.min.js", onload: () => resolve(window.Plotly), onerror: reject }));
  });
  return loaded.plotly;
}
const values = (metric) => load(data.chunks[metric], `values ${metric}`);

// ---- Tables

function shownValue(cell) {
  if (!cell) return null;
  const text = cell.dataset.value ?? (cell.firstChild?.textContent ?? "").trim();
  const number = Number.parseFloat(text.replace("−", "-").replaceAll(",", "").replace("%", ""));
  return /^[−+-]?[\d.,]+/.test(text) && !/^\d{4}-\d\d/.test(text) ? number : text.toLowerCase();
}

function compareValues(a, b) {
  const empty = (value) => value === null || value === "" || value === "–";
  if (empty(a) || empty(b)) return 0;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

// A third click gives back the order, and the headings, that the table came with.
function sortable(table) {
  const bodies = [...table.tBodies];
  const rows = bodies.flatMap((body) => [...body.rows]).filter((row) => !row.matches(".heading"));
  const home = new Map(rows.map((row) => [row, row.parentElement]));
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head) => {
    const place = heads.indexOf(head);
    const before = head.ariaSort;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    const numeric = rows.some((row) => typeof shownValue(row.cells[place]) === "number");
    const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const next = before === order[1] ? null : before === order[0] ? order[1] : order[0];
    table.querySelectorAll("tr.heading").forEach((row) => (row.hidden = next !== null));
    if (next === null) {
      rows.forEach((row) => home.get(row).append(row));
      return;
    }
    head.ariaSort = next;
    const sign = next === "ascending" ? 1 : -1;
    const missing = (row) => ["", "–", null].includes(shownValue(row.cells[place]));
    const sorted = [...rows].sort(
      (a, b) => missing(a) - missing(b) || sign * compareValues(shownValue(a.cells[place]), shownValue(b.cells[place])),
    );
    bodies[0].append(...sorted);
  };
  for (const head of heads) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort(head);
      }
    });
  }
}
document.querySelectorAll("table.sortable, .details table, .verdicts table").forEach(sortable);

function filterTables(selector) {
  const words = document.querySelector(`[data-filter="${selector}"]`).value.toLowerCase().split(/\s+/).filter(Boolean);
  const only = document.querySelector(`[data-only][data-of="${selector}"]`);
  for (const row of document.querySelectorAll(`${selector} tbody tr:not(.heading)`)) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (only?.checked && row.dataset.kind !== only.dataset.only);
  }
}
for (const each of document.querySelectorAll("[data-filter]")) each.addEventListener("input", () => filterTables(each.dataset.filter));
for (const each of document.querySelectorAll("[data-only]")) each.addEventListener("change", () => filterTables(each.dataset.of));
for (const each of document.querySelectorAll("[data-pick]"))
  each.addEventListener("change", () => {
    document.querySelectorAll(each.dataset.pick).forEach((part, number) => (part.hidden = number !== Number(each.value)));
  });

for (const box of document.querySelectorAll("[data-verdicts]"))
  box.addEventListener("change", () => {
    const wanted = new Set([...box.querySelectorAll(":checked")].map((each) => each.value));
    for (const row of document.querySelectorAll(".verdicts tbody tr")) {
      const verdicts = [...row.cells].filter((cell) => ["holds", "does-not-hold", "undecided", "not-measured"].includes(cell.className));
      for (const cell of verdicts) cell.style.opacity = wanted.has(cell.className) ? "" : ".15";
      row.hidden = verdicts.length > 0 && !verdicts.some((cell) => wanted.has(cell.className));
    }
  });

// ---- Where a number comes from

for (const table of document.querySelectorAll(".details table")) {
  const heads = [...table.tHead.rows[0].cells];
  for (const cell of table.querySelectorAll("tbody tr[data-row] td")) {
    const column = heads[cell.cellIndex]?.dataset.column;
    const row = cell.parentElement.dataset.row;
    if (!data.columns?.[column] || !data.rows?.[row] || cell.textContent.trim() === "–") continue;
    cell.classList.add("number");
    cell.tabIndex = 0;
    cell.addEventListener("click", () => explain(row, column, cell));
    cell.addEventListener("keydown", (event) => event.key === "Enter" && explain(row, column, cell));
  }
}

function explain(row, column, cell) {
  const about = data.columns[column];
  const body = byId("detail-body");
  body.replaceChildren(
    element("h2", { id: "detail-title", textContent: `${data.rows[row].label}: ${about.label}` }),
    element("p", { className: "big", textContent: cell.textContent.replace(/\s+/g, " ").trim() }),
    element("p", { className: "hint", textContent: about.about }),
  );
  if (data.chunks?.[column]) body.append(...distribution(row, column, about));
  body.append(element("h3", { textContent: "Where it comes from" }));
  for (const [name, run] of Object.entries(data.runs)) {
    const maps = data.rows[row].maps.filter((each) => each[0] === name);
    if (!maps.length && !data.rows[row].maps.length) body.append(element("p", { className: "hint", textContent: "It was not recorded." }));
    if (!maps.length) continue;
    const several = Object.keys(data.runs).length > 1;
    const title = several ? element("a", { href: run.page, textContent: name }) : element("span", { textContent: name });
    const said = [run.ended, run.commit ? `commit ${run.commit.slice(0, 10)}` : "commit not recorded"].join(", ");
    body.append(element("p", {}, title, element("span", { className: "hint", textContent: ` ${said}` })));
    if (run.command) body.append(element("pre", {}, element("code", { textContent: run.command })));
    const tree = element("ul", { className: "tree" });
    for (const [, , key] of maps) {
      const scores = data.scores[key]?.[about.family];
      tree.append(branch(scores ?? key));
    }
    body.append(tree);
  }
  byId("detail").showModal();
}

function branch(key) {
  const made = data.artifacts[key];
  if (!made) return element("li", { className: "leaf" }, element("code", { textContent: key }), " is not in a store that was given");
  const about = ` ${made.created.slice(0, 16).replace("T", " ")}, ${made.seconds.toLocaleString("en")} s`;
  const summary = element("summary", {}, element("b", { textContent: made.kind }), " ", element("code", { textContent: key }), about);
  const inside = element("ul");
  const opened = element("details", {}, summary, inside);
  // Artifacts share what they are made from: a branch is put there when somebody looks at it.
  opened.addEventListener("toggle", () => {
    if (inside.children.length) return;
    for (const [name, size, link] of made.files)
      inside.append(element("li", { className: "leaf" }, element("a", { href: link, textContent: name }), size && ` ${size}`));
    for (const parent of made.from) if (data.artifacts[parent]) inside.append(branch(parent));
  });
  return element("li", {}, opened);
}

function distribution(row, column, about) {
  const box = element("div", { className: "chart" });
  const ends = element("p", { className: "hint" });
  values(column).then((found) => {
    const own = found.rows[row] ?? [];
    const known = own.map((value, place) => [value, found.images[place]]).filter(([value]) => value !== null);
    if (!known.length) return;
    const all = known.map(([value]) => value);
    const few = [...new Set(all)].sort((a, b) => a - b);
    const look = { marker: { color: "#0072b2" }, hovertemplate: "%{x}: %{y} images<extra></extra>" };
    // Such as right or wrong: bins would be wider than what lies between them.
    const trace = few.length > 8 ? { type: "histogram", x: all, ...look } : { type: "bar", x: few.map(String), y: few.map((value) => all.filter((each) => each === value).length), ...look };
    const layout = { height: 200, margin: { t: 8, b: 44 }, xaxis: { title: { text: escaped(withUnit(about)) }, ...(few.length > 8 ? {} : { type: "category" }) }, yaxis: { title: { text: "images" } }, bargap: 0.04 };
    draw(box, { data: [trace], layout });
    known.sort((a, b) => a[0] - b[0]);
    const listed = (some) => some.map(([value, image]) => `${image} (${value})`).join(", ");
    ends.textContent = `${known.length.toLocaleString("en")} images. Lowest: ${listed(known.slice(0, 3))}. Highest: ${listed(known.slice(-3).reverse())}.`;
  });
  return [element("h3", { textContent: "Single images" }), box, ends];
}

// ---- Charts

const withUnit = (about) => [about.label, about.unit].filter(Boolean).join(", ");
// Plotly reads a few tags of HTML in its texts.
const escaped = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const drawn = new Map();

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = { color: colour("--text"), family: getComputedStyle(document.body).fontFamily, size: 12 };
  const made = { margin: { l: 56, r: 16, t: 34, b: 48 }, legend: { orientation: "h", y: -0.18, yanchor: "top" }, ...layout, font };
  for (const key of Object.keys(made))
    if (/^[xy]axis/.test(key)) made[key] = { gridcolor: colour("--line"), linecolor: colour("--line"), automargin: true, ...made[key] };
  const hover = { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--text") } };
  return { ...made, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hoverlabel: hover };
}
const night = window.matchMedia("(prefers-color-scheme: dark)");
function toned(traces) {
  // The grey of controls and levels is all but black on a dark page.
  return night.matches ? JSON.parse(JSON.stringify(traces).replaceAll("#595959", "#a0a7b2").replaceAll("#000000", "#e4e6ea")) : structuredClone(traces);
}
async function draw(box, content) {
  drawn.set(box, content);
  const Plotly = await plotly();
  await Plotly.react(box, toned(content.data), toned(themed(content.layout)), { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
}
night.addEventListener("change", () => drawn.forEach((content, box) => box.isConnected && draw(box, content)));

const whenSeen = (box, then) =>
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    then();
  }, { rootMargin: "300px" }).observe(box);
for (const box of document.querySelectorAll("[data-chart]")) whenSeen(box, () => draw(box, data.charts[Number(box.dataset.chart)]));

const KINDS = { trained: "#0072b2", refined: "#cc79a7", "post-hoc": "#d55e00", control: "#595959", classifier: "#009e73" };

function meansChart() {
  const column = byId("column").value;
  const about = data.columns[column];
  const group = data.means[Number(byId("group").value || 0)];
  const singles = byId("images").checked && data.chunks?.[column];
  byId("single").hidden = !data.chunks?.[column];
  const better = about.better ? `, ${about.better} is better` : "";
  byId("told").textContent = `${about.label}${better}. ${about.about}`;
  const rows = Object.entries(group?.cells[column] ?? {})
    .filter(([name]) => data.rows[name] && (byId("controls").checked || data.rows[name].kind !== "control"))
    .sort((a, b) => (about.better === "lower" ? b[1][0] - a[1][0] : a[1][0] - b[1][0]));
  const label = ([name]) => escaped(data.rows[name].label);
  const layout = {
    height: 90 + 26 * rows.length, showlegend: true, margin: { l: 8, r: 16, t: 8, b: 48 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    xaxis: { title: { text: escaped(withUnit(about)) }, zeroline: false },
    yaxis: { categoryorder: "array", categoryarray: rows.map(label), tickmode: "array", tickvals: rows.map(label), automargin: true },
  };
  const kinds = [...new Set(rows.map(([name]) => data.rows[name].kind))];
  if (!singles) {
    const traces = kinds.map((kind) => {
      const own = rows.filter(([name]) => data.rows[name].kind === kind);
      return {
        type: "scatter", mode: "markers", name: kind, x: own.map(([, cell]) => cell[0]), y: own.map(label), marker: { color: KINDS[kind], size: 9 },
        error_x: { type: "data", symmetric: false, array: own.map(([, cell]) => (cell[2] ?? cell[0]) - cell[0]), arrayminus: own.map(([, cell]) => cell[0] - (cell[1] ?? cell[0])), thickness: 1.4 },
        hovertemplate: "<b>%{y}</b><br>%{x:.4~g}<extra></extra>",
      };
    });
    return draw(byId("means"), { data: traces, layout });
  }
  return values(column).then((found) => {
    const traces = rows.filter(([name]) => found.rows[name]).map(([name]) => ({
      type: "box", orientation: "h", name: label([name]), x: found.rows[name], y: found.rows[name].map(() => label([name])), text: found.images.map((image) => `image ${image}`),
      marker: { color: KINDS[data.rows[name].kind], size: 3 }, line: { width: 1.2 }, boxpoints: "outliers", showlegend: false, hovertemplate: "%{text}: %{x:.4~g}<extra></extra>",
    }));
    return draw(byId("means"), { data: traces, layout: { ...layout, showlegend: false } });
  });
}
if (byId("means")) {
  const there = Object.keys(data.columns).filter((name) => data.means.some((group) => group.cells[name]));
  byId("column").append(...there.map((name) => element("option", { value: name, textContent: data.columns[name].label })));
  byId("group").append(...data.means.map((group, number) => element("option", { value: number, textContent: group.title })));
  byId("which").hidden = data.means.length < 2;
  for (const id of ["column", "group", "images", "controls"]) byId(id).addEventListener("change", meansChart);
  if (there.length) whenSeen(byId("means"), meansChart);
}

// ---- The gallery

function openAlbum(album) {
  const own = { shown: album.images.map((_, number) => number), at: 0, left: 0, right: 1 };
  const firsts = album.tiles.map((tile, place) => ({ row: tile[0], label: tile[1], second: tile[2], place })).filter((tile) => !tile.second);
  const seconds = new Map(album.tiles.map((tile, place) => [tile, place]).filter(([tile]) => tile[2]).map(([tile, place]) => [tile[1], place]));
  const file = (number) => `${album.folder}/${String(number).padStart(5, "0")}.webp`;

  function tile(number, place) {
    // Files without a second class end before its tiles.
    const count = album.images[number][4] === null ? firsts.length : album.tiles.length;
    const across = Math.min(count, album.across);
    const down = Math.ceil(count / album.across);
    const share = (at, of) => (of > 1 ? `${(100 * at) / (of - 1)}%` : "0");
    const made = element("span", { className: "tile-of" });
    made.style.aspectRatio = `${album.width} / ${album.height}`;
    made.style.backgroundImage = `url("${file(number)}")`;
    made.style.backgroundSize = `${100 * across}% ${100 * down}%`;
    made.style.backgroundPosition = `${share(place % album.across, across)} ${share(Math.floor(place / album.across), down)}`;
    made.role = "img";
    made.ariaLabel = `${album.tiles[place][1]}, image ${album.images[number][0]}`;
    return made;
  }

  const isWrong = (image) => image[3] !== null && image[3] !== image[2];
  const classes = [...new Set(album.images.flatMap((image) => [image[3] ?? image[1]]))].sort();
  byId("class").append(...classes.map((name) => element("option", { value: name, textContent: name })));
  byId("seconds").hidden = seconds.size === 0;
  byId("value").append(...Object.keys(data.chunks ?? {}).map((name) => element("option", { value: name, textContent: data.columns[name]?.label ?? name })));
  for (const side of ["left", "right"]) byId(side).append(...firsts.map((each) => element("option", { value: each.place, textContent: each.label })));

  const STEP = 60;
  function thumbs(from = 0) {
    const box = byId("thumbs");
    if (!from) box.replaceChildren();
    box.querySelector(".more")?.remove();
    const some = own.shown.slice(from, from + STEP);
    some.forEach((number, place) => {
      const image = album.images[number];
      const button = element("button", { type: "button", role: "option", title: `image ${image[0]}`, className: isWrong(image) ? "wrong" : "" });
      const text = element("span", { textContent: image[3] ?? image[1] });
      button.dataset.at = from + place;
      button.append(text);
      new IntersectionObserver((entries, observer) => {
        if (!entries[0].isIntersecting) return;
        observer.disconnect();
        button.prepend(tile(number, 0));
      }, { root: box, rootMargin: "200px" }).observe(button);
      button.addEventListener("click", () => show(from + place));
      box.append(button);
    });
    const left = own.shown.length - from - some.length;
    if (left > 0) {
      const more = element("button", { type: "button", className: "more", textContent: `${left} more` });
      more.addEventListener("click", () => thumbs(from + STEP));
      box.append(more);
    }
  }

  function choose() {
    const name = byId("class").value;
    own.shown = album.images.map((_, number) => number).filter((number) => {
      const image = album.images[number];
      return (!name || (image[3] ?? image[1]) === name) && (!byId("wrong").checked || isWrong(image));
    });
    thumbs();
    show(0);
  }

  function compare(number) {
    const over = byId("over");
    over.replaceChildren(tile(number, own.right), tile(number, own.left));
    byId("left").value = own.left;
    byId("right").value = own.right;
    slide();
  }
  const slide = () => byId("over").lastElementChild?.style.setProperty("clip-path", `inset(0 ${100 - byId("slide").value}% 0 0)`);

  async function show(at) {
    own.at = at;
    const number = own.shown[at];
    const box = byId("maps");
    if (number === undefined) {
      box.replaceChildren(element("p", { className: "hint", textContent: "No image is so." }));
      byId("over").replaceChildren();
      byId("said").textContent = "";
      return;
    }
    const image = album.images[number];
    for (const each of byId("thumbs").children) each.ariaSelected = String(Number(each.dataset.at) === at);
    const words = [`Image ${image[0]} of the split`, image[3] === null ? null : `true class ${image[3]}`, `predicted ${image[2]}`, `explained ${image[1]}`, image[4] === null ? null : `second class ${image[4]}`];
    byId("said").textContent = `${words.filter(Boolean).join(", ")}.`;
    compare(number);
    const both = byId("second").value === "both" && image[4] !== null;
    box.classList.toggle("both", both);
    const wanted = byId("rows").value.toLowerCase().split(/\s+/).filter(Boolean);
    const metric = byId("value").value;
    const found = metric ? await values(metric) : null;
    if (own.shown[own.at] !== number) return;
    const where = found ? found.images.indexOf(image[0]) : -1;
    const figures = firsts.slice(1).filter((each) => wanted.every((word) => each.label.toLowerCase().includes(word))).map((each) => {
      const pair = element("div", { className: "pair" }, element("div", {}, tile(number, each.place), both ? element("small", { textContent: image[1] }) : ""));
      if (both && seconds.has(each.label)) pair.append(element("div", {}, tile(number, seconds.get(each.label)), element("small", { textContent: image[4] })));
      const value = found?.rows[each.row]?.[where];
      const caption = element("figcaption", {}, element("b", { textContent: each.label }), element("span", { textContent: found ? ` ${value ?? "–"}` : "" }));
      const made = element("figure", { tabIndex: 0 }, pair, caption);
      made.dataset.kind = data.rows?.[each.row]?.kind ?? "";
      const take = () => {
        own.right = own.left;
        own.left = each.place;
        compare(number);
      };
      made.addEventListener("click", take);
      made.addEventListener("keydown", (event) => event.key === "Enter" && take());
      return made;
    });
    box.replaceChildren(...figures);
  }

  for (const id of ["class", "wrong"]) byId(id).addEventListener("change", choose);
  for (const id of ["second", "value"]) byId(id).addEventListener("change", () => show(own.at));
  byId("rows").addEventListener("input", () => show(own.at));
  byId("slide").addEventListener("input", slide);
  for (const side of ["left", "right"])
    byId(side).addEventListener("change", () => {
      own[side] = Number(byId(side).value);
      compare(own.shown[own.at]);
    });
  byId("thumbs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined || own.shown[own.at + step] === undefined) return;
    event.preventDefault();
    if (own.at + step >= byId("thumbs").querySelectorAll("[data-at]").length) byId("thumbs").querySelector(".more")?.click();
    show(own.at + step);
    byId("thumbs").children[own.at]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  choose();
}
if (data.gallery) whenSeen(byId("album"), () => load(data.gallery, "gallery").then(openAlbum));
