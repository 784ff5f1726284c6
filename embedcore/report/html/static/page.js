// The page of a leaderboard: table, charts, gallery, and the dialog of a model. Data is inserted as text only.
"use strict";
(() => {
  const { $, json, narrow, el, drawn } = embedPage;
  const { models, columns, families, intervals, name, ranges, short, metrics: [headline, five] } = json("data");
  if (!models.length) { document.body.dataset.ready = "1"; return; }
  const lazily = (make) => { let made; return () => (made ??= make()); };
  const details = lazily(() => json("details"));
  const charts = lazily(() => json("charts").charts);
  const byName = new Map(models.map((row) => [row.model, row]));

  // ---- numbers and words ----
  const count = (n) => n.toLocaleString("en");
  const score = (value) => (value == null ? "–" : value.toFixed(3));
  function figure(value) {
    if (value == null) return "–";
    const size = Math.abs(value);
    return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
  }
  const link = (row, shown = row.model) => el("a", {
    class: "model", href: `#model=${encodeURIComponent(row.model)}`, "data-model": row.model,
    ...(shown === row.model ? {} : { title: row.model, "aria-label": row.model }),
  }, shown);

  // ---- the state in the address ----
  const CHECKS = ["tied", "front"];
  const FILTERS = ["q", "family", "min", "max", "licence", "pretraining", "input", "weights", ...CHECKS];
  const STATE = [...FILTERS, "sort", "columns", "model"];
  function read() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(STATE.filter((key) => parameters.get(key)).map((key) => [key, parameters.get(key)]));
  }
  let state = read();
  function write(changes, push = false) {
    state = { ...state, ...changes };
    for (const key of STATE) if (!state[key]) delete state[key];
    const hash = new URLSearchParams(Object.entries(state)).toString();
    history[push ? "pushState" : "replaceState"](null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  // ---- the table ----
  function interval(metric) {
    return (cell) => {
      const row = cell.getData(), value = row[metric], low = row[`${metric}_low`], high = row[`${metric}_high`];
      if (value == null) return "–";
      const [from, to] = ranges[metric], part = (x) => (100 * x) / (to - from || 1);
      const share = (x) => `${part(x - from).toFixed(2)}%`;
      const track = el("span", { class: "track", "aria-hidden": "true" });
      if (intervals && low != null) {
        const band = el("i");
        band.style.left = share(low);
        band.style.width = `${part(high - low).toFixed(2)}%`;
        track.append(band);
      }
      const mark = el("b");
      mark.style.left = share(value);
      track.append(mark);
      const words = intervals && low != null ? `95 % interval ${score(low)} to ${score(high)}` : null;
      return el("span", { class: "interval", title: words }, score(value), track);
    };
  }
  const text = (shown) => (cell) => { const value = shown(cell.getData()); return value instanceof Node ? value : document.createTextNode(value ?? "–"); };
  const FORMATS = {
    model: (row, cell) => el("span", {}, link(row, (narrow && short[row.id]) || row.model), cell.slice(row.model.length)),
    family: (row) => row.title,
    weights: (row, cell) => (row.random ? el("span", { class: "random" }, cell) : cell),
  };
  const byTitle = (a, b, one, other) => one.getData().title.localeCompare(other.getData().title);
  // The cells are those of the table of columns in Python; they come with their marks.
  const COLUMNS = columns.map((column, place) => ({
    field: column.key, title: narrow ? column.title : column.meaning, meaning: column.meaning, off: column.optional, csv: column.csv,
    width: column.width, ...(column.key === "model" ? { frozen: true, minWidth: 150 } : {}),
    sorter: column.key === "family" ? byTitle : column.text ? "string" : "number", sorterParams: { alignEmptyValues: "bottom" },
    headerSortStartingDir: column.descending ? "desc" : "asc", hozAlign: column.text || column.interval ? "left" : "right",
    formatter: column.interval ? interval(column.key) : text((row) => (FORMATS[column.key] ?? ((_, cell) => cell))(row, row.cells[place])),
  }));
  const titled = ({ title, meaning }) => () => el("button", { type: "button", title: meaning, "aria-label": `${title === meaning ? "" : `${title}, `}${meaning}, sort` }, title);
  const usual = COLUMNS.filter(({ field, off }) => !off && !(narrow && field === "rank95")).map(({ field }) => field);
  const shown = new Set(state.columns ? state.columns.split(",") : usual);
  const [sortField, sortDir] = (state.sort ?? "rank:asc").split(":");
  const known = COLUMNS.some((column) => column.field === sortField);
  const table = new Tabulator("#table", {
    data: models,
    index: "id",
    layout: "fitDataFill",
    ...(models.length > 14 ? { height: "min(72vh, 900px)" } : {}),
    rowHeight: 37,
    autoResize: false, // it rebuilds all rows when they first come into view, which loses clicks and the focus
    columnDefaults: { headerHozAlign: "left", headerWordWrap: true, resizable: "header", tooltip: false },
    columns: COLUMNS.map((column) => {
      const { off, meaning, csv, ...definition } = column;
      const width = narrow && { model: { width: 160 }, rank: { width: 58 }, [headline]: { width: 140 } }[column.field];
      return { ...definition, ...width, titleFormatter: titled(column), visible: column.field === "model" || shown.has(column.field) };
    }),
    initialSort: [{ column: known ? sortField : "rank", dir: sortDir === "desc" ? "desc" : "asc" }],
    initialFilter: [],
    placeholder: "No model fits these filters",
    printAsHtml: true,
    printRowRange: "active",
    headerSortElement: (column, dir) => (dir === "asc" ? "↑" : dir === "desc" ? "↓" : ""),
  });

  // ---- filters ----
  const form = $("#filters");
  const LICENCES = { "*free": "not marked ‡" };
  function options(select, field, all, label = (value) => value, more = {}) {
    const values = [...new Set(models.map((row) => row[field]).filter((value) => value != null && value !== "–"))];
    values.sort((a, b) => label(a).localeCompare(label(b), "en", { numeric: true }));
    select.append(el("option", { value: "" }, all), ...Object.entries(more).map(([value, word]) => el("option", { value }, word)),
      ...values.map((value) => el("option", { value }, label(value))));
    select.closest("label").hidden = values.length < 2;
  }
  const titles = Object.fromEntries(families.map((family) => [family.slug, `${family.title} (${family.count})`]));
  options(form.family, "family", "all", (slug) => titles[slug]);
  options(form.licence, "licence", "all", undefined, models.some((row) => row.non_commercial) ? LICENCES : {});
  options(form.pretraining, "pretraining", "all");
  options(form.input, "input", "all");
  options(form.weights, "weights", "all");
  form.tied.closest("label").hidden = !models.some((row) => row.tied);
  form.front.closest("label").hidden = models.filter((row) => row.front).length < 2;
  const haystack = models.map((row) => [row.model, row.title, row.family, row.pretraining, row.licence].join(" ").toLowerCase());

  const number = (value) => (value === undefined || value === "" || Number.isNaN(Number(value)) ? null : Number(value));
  function fits(row, anyFamily = false) {
    const { q = "", family, licence, pretraining, input, weights, tied, front } = state;
    const least = number(state.min), most = number(state.max);
    return q.toLowerCase().split(/\s+/).every((word) => haystack[row.id].includes(word))
      && (anyFamily || !family || row.family === family)
      && (least === null || row.params_m >= least)
      && (most === null || (row.params_m != null && row.params_m <= most))
      && (!licence || (licence === "*free" ? !row.non_commercial : row.licence === licence))
      && (!pretraining || row.pretraining === pretraining)
      && (!input || row.input === input)
      && (!weights || row.weights === weights)
      && (!tied || row.tied)
      && (!front || row.front);
  }
  function filter() {
    const begun = performance.now();
    if (FILTERS.some((key) => state[key])) table.setFilter((row) => fits(row));
    else table.clearFilter();
    const left = table.getDataCount("active");
    $("#count").textContent = left === models.length ? `${count(left)} model${left === 1 ? "" : "s"}` : `${count(left)} of ${count(models.length)} models`;
    document.body.dataset.filterMs = (performance.now() - begun).toFixed(1);
    highlight();
    refilter();
  }
  function fill() {
    for (const key of FILTERS) {
      if (CHECKS.includes(key)) form[key].checked = Boolean(state[key]);
      else form[key].value = state[key] ?? "";
    }
  }
  form.addEventListener("input", (event) => {
    const { name: key, type, checked, value } = event.target;
    write({ [key]: type === "checkbox" ? (checked ? "1" : "") : value.trim() });
    filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    write(Object.fromEntries(FILTERS.map((key) => [key, ""])));
    fill();
    filter();
  });

  // ---- columns, download, link ----
  const box = $("#columns fieldset");
  box.append(...COLUMNS.filter(({ field }) => field !== "model").map((column) =>
    el("label", {}, el("input", { type: "checkbox", value: column.field, checked: shown.has(column.field) }), column.meaning)));
  box.addEventListener("change", (event) => {
    table[event.target.checked ? "showColumn" : "hideColumn"](event.target.value);
    write({ columns: [...box.querySelectorAll(":checked")].map((input) => input.value).join(",") || "model" });
  });
  document.addEventListener("click", (event) => { if (!event.target.closest("#columns")) $("#columns").open = false; });
  $("#columns").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { $("#columns").open = false; $("#columns summary").focus(); }
  });
  function csv() {
    // Spreadsheets take these for the beginning of a formula; with East Asian settings the full-width forms too.
    const cell = (value) => {
      if (value == null) return "";
      let shown = String(value);
      if (typeof value === "string" && /^[=+\-@＝＋－＠\t\r]/.test(shown)) shown = `'${shown}`;
      return /[",\n\r]/.test(shown) ? `"${shown.replaceAll('"', '""')}"` : shown;
    };
    const fields = table.getColumns().filter((column) => column.isVisible()).flatMap((column) => columns.find(({ key }) => key === column.getField()).csv);
    const lines = [fields, ...table.getData("active").map((row) => fields.map((field) => row[field]))];
    return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
  }
  $("#csv").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    el("a", { href: address, download: `${name.replace(/[^\w.-]+/g, "-") || "models"}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  function copies(button, content) {
    const before = button.textContent;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(content());
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not permitted: copy it manually";
      }
      setTimeout(() => { button.textContent = before; }, 2000);
    });
  }
  copies($("#share"), () => location.href);
  const code = $("#copy");
  if (code) {
    code.hidden = false;
    copies(code, () => codeOf(details().details[byName.get(code.dataset.of).id]));
  }

  table.on("tableBuilt", () => {
    // ARIA allows no element between a grid and its rows, but Tabulator has one.
    $("#table").setAttribute("aria-label", "Models");
    $("#table .tabulator-tableholder").setAttribute("role", "rowgroup");
    $("#table .tabulator-table").setAttribute("role", "presentation");
    fill();
    filter();
    document.body.dataset.ready = "1";
    addEventListener("resize", () => table.redraw());
    if (state.model) open(state.model);
  });
  table.on("dataSorted", (sorters) => {
    const by = sorters.map(({ field, dir }) => `${field}:${dir}`).join("");
    write({ sort: by === "rank:asc" ? "" : by });
  });
  // Arrow keys move between models; only visible rows are in the page.
  $("#table").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const here = event.target.closest("a.model");
    if (!step || !here) return;
    event.preventDefault();
    const rows = table.getRows("active");
    const next = rows[rows.findIndex((row) => row.getData().model === here.dataset.model) + step];
    if (!next) return;
    table.scrollToRow(next, "nearest", false).catch(() => {}).then(() => $("a.model", next.getElement())?.focus({ preventScroll: true }));
  });

  // ---- the dialog of a model ----
  const dialog = $("#model");
  document.addEventListener("click", (event) => {
    const model = event.target.closest("a[data-model]")?.dataset.model;
    if (model === undefined || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    open(model);
    write({ model }, true);
  });
  dialog.addEventListener("close", () => write({ model: "" }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);
  function follow() {
    const before = state;
    if (location.hash && !location.hash.includes("=")) return; // a place in the page
    state = read();
    if (FILTERS.some((key) => before[key] !== state[key])) { fill(); filter(); }
    if (state.model) open(state.model);
    else if (dialog.open) dialog.close();
  }
  const codeOf = (more) => more.code.map((place) => `${details().texts[place]}\n`).join("");
  const cells = (tag, ...values) => values.map((value) => el(tag, { class: "number" }, value ?? "–"));
  function grid(heads, lines, kind = "") {
    const headed = heads.map((head) => (head.startsWith("=") ? el("th", { scope: "col", class: "number" }, head.slice(1)) : el("th", { scope: "col" }, head)));
    return el("table", { class: kind }, ...(heads.length ? [el("thead", {}, el("tr", {}, ...headed))] : []), el("tbody", {}, ...lines));
  }
  function open(model) {
    const row = byName.get(model);
    if (!row) return;
    const { details: all, texts, classes, queries } = details();
    const more = all[row.id];
    const found = more.scores;
    const settings = more.settings.flatMap((place, n) => (n % 2 ? [] : [el("tr", {}, el("th", { scope: "row" }, texts[place]), el("td", {}, texts[more.settings[n + 1]]))]));
    const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
    const parts = [
      el("div", { class: "top" }, el("div", {}, el("h2", { id: "model-name", tabindex: "-1" }, row.model), el("p", {}, row.title), row.marks ? el("p", { class: "caveat" }, row.marks) : null), close),
      el("h3", {}, "Scores"),
      grid(["metric", "=value", ...(intervals ? ["=95 % interval"] : [])], found.map((metric) => el("tr", {}, el("th", { scope: "row" }, metric), ...cells("td", score(row[metric]),
        ...(intervals ? [row[`${metric}_low`] == null ? null : `${score(row[`${metric}_low`])}–${score(row[`${metric}_high`])}`] : []))))),
      el("h3", {}, "Neighbours in rank"),
      neighbours(row, more),
    ];
    if (more.best?.length) {
      const list = (heading, lines) => el("div", {}, el("h3", {}, heading), grid(["class", "=queries", `=${headline}`, `=${five}`],
        lines.map(([number, ...values]) => el("tr", {}, el("th", { scope: "row" }, classes[number]), ...cells("td", count(queries[number]), ...values.map((value) => value.toFixed(2)))))));
      parts.push(el("div", { class: "two" }, list("Best classes", more.best), list("Worst classes", more.worst)));
    }
    if (more.rounds.length) parts.push(el("h3", {}, "Timing rounds"), rounds(more.rounds));
    parts.push(el("h3", {}, "Settings"), grid([], settings, "settings"));
    if (more.code.length) {
      const copy = el("button", { type: "button" }, "Copy");
      copies(copy, () => codeOf(more));
      parts.push(el("h3", {}, "Use it"), el("pre", { tabindex: "0", role: "region", "aria-label": "Python code" }, codeOf(more)), copy);
    }
    $(".drawer", dialog).replaceChildren(...parts);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    close.focus();
  }
  function neighbours(row, more) {
    const WORDS = { true: "significant", false: "not significant" };
    const near = [...more.neighbours, [row.id, "self"]].sort((a, b) => a[0] - b[0]);
    const known = more.neighbours.some(([, differs]) => differs !== null);
    return grid(["=#", "model", `=${headline}`, ...(known ? ["difference"] : [])], near.map(([id, differs]) => {
      const other = models[id], self = differs === "self";
      return el("tr", { "aria-current": self ? "true" : null }, ...cells("td", `${other.rank}`), el("td", {}, self ? other.model : link(other)), ...cells("td", score(other[headline])),
        ...(known ? [el("td", {}, self ? "" : WORDS[differs] ?? "–")] : []));
    }));
  }
  function rounds(values) {
    const sorted = [...values].sort((a, b) => a - b), low = sorted[0], high = sorted.at(-1);
    const middle = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
    const words = `${values.length} rounds: median ${middle.toPrecision(3)} ms per image, from ${low.toPrecision(3)} to ${high.toPrecision(3)}`;
    const place = (value) => `${(2 + 96 * (high > low ? (value - low) / (high - low) : 0.5)).toFixed(2)}%`;
    const strip = drawn("svg", { class: "rounds", role: "img", "aria-label": words }, drawn("line", { class: "axis", x1: "0", x2: "100%", y1: 13, y2: 13 }),
      ...values.map((value) => drawn("line", { x1: place(value), x2: place(value), y1: 2, y2: 24 })));
    const label = (value, anchor, x) => drawn("text", { x, y: 42, "text-anchor": anchor }, `${value.toPrecision(3)} ms`);
    strip.append(label(low, "start", "0"), ...(high > low ? [label(high, "end", "100%")] : []));
    return el("div", {}, strip, el("p", {}, words));
  }

  // ---- the best model of a speed ----
  const need = $("#need");
  if (need && models.some((row) => row.images_per_s)) {
    $("#by-speed").hidden = false;
    const kinds = { random: "random weights", own: "own model", non_commercial: "not for commercial use" };
    const marks = (row) => [row.doubts && `doubtful: ${row.doubts}`, ...Object.keys(kinds).map((kind) => row[kind] && kinds[kind])].filter(Boolean);
    const told = (row) => [link(row), ` (${[`${headline} ${score(row[headline])}, ${figure(row.images_per_s)} images/s`, ...marks(row)].join("; ")})`];
    const pretrained = models.filter((row) => !row.random), useful = pretrained.length ? pretrained : models;
    need.addEventListener("input", () => {
      const wanted = number(need.value), fast = useful.filter((row) => wanted !== null && row.images_per_s >= wanted);
      const best = fast.find((row) => !row.doubts), other = fast[0];
      const none = useful.some((row) => row.images_per_s && !row.doubts) ? "No model with a speed that can be trusted is that fast. " : "";
      $("#needed").replaceChildren(...(wanted === null ? [] : best ? told(best) : other ? [none, ...told(other)] : ["No model is that fast."]));
    });
  }

  // ---- charts ----
  // A family is highlighted among the others; the other filters remove models. Headline charts show the best few.
  const { choose, highlight: recolour, refill } = embedPage.figures({
    charts, datasets: {}, signals: () => ({ family: state.family ?? "" }), rows, filtered,
    begun: (figure, chart) => { if (chart.name === "classes") pairs(figure, chart); }, brief,
  });
  const press = embedPage.legend(families, () => state.family ?? "", (family) => { write({ family }); fill(); filter(); });
  function highlight() {
    recolour();
    press();
  }
  const fitting = () => models.filter((row) => fits(row, true));
  const most = (figure, chart) => (chart.name.startsWith("leaders") ? Number(figure.dataset.most) : Infinity);
  // The best few of the leaders; if the recommended model is not among them, it comes last.
  function rows(figure, chart) {
    const names = brief(chart);
    return chosen(figure, chart).map((row) => (names.has(row.name) ? { ...row, name: names.get(row.name) } : row));
  }
  // Names on an axis of a narrow screen.
  function brief(chart) {
    const shorter = narrow && chart.name.startsWith("leaders") ? models.filter((row) => short[row.id]) : [];
    return new Map(shorter.map((row) => [row.name, short[row.id]]));
  }
  function chosen(figure, chart) {
    const found = fitting(), left = found.length ? found : [...models], shown = most(figure, chart);
    if (shown === Infinity) return left;
    const rank = chart.name.endsWith(five) ? `rank_${five}` : "rank";
    left.sort((a, b) => a[rank] - b[rank]);
    const taken = left.findIndex((row) => row.taken);
    return taken < shown ? left.slice(0, shown) : [...left.slice(0, shown - 1), left[taken]];
  }
  const left = () => { const found = fitting().length; return found === models.length ? "" : found ? `Filtered: ${count(found)} of ${count(models.length)} models.` : "No model fits the filters, so all are shown."; };
  function filtered(figure, chart) {
    const shown = most(figure, chart), last = rows(figure, chart).at(-1);
    const few = (fitting().length || models.length) > shown;
    const which = last.taken ? `The best ${shown - 1} and the recommended model are shown.` : `The best ${shown} are shown.`;
    return `${left()} ${few ? which : ""}`.trim();
  }
  let waiting, before = "";
  function refilter() {
    const words = left();
    if (words === before && !words) return;
    before = words;
    clearTimeout(waiting);
    waiting = setTimeout(refill, 100);
  }
  function pairs(figure, chart) {
    const { classes, queries, right } = details();
    const names = Object.keys(right);
    const pick = (label, model) => {
      const select = el("select", {}, ...names.map((each) => el("option", { selected: each === model }, each)));
      $(".choice", figure).append(el("label", {}, label, select));
      return select;
    };
    const first = pick("first", chart.names["@first"]), second = pick("second", chart.names["@second"]);
    const change = () => {
      const points = new Map();
      classes.forEach((each, place) => {
        const pair = [right[first.value][place] / queries[place], right[second.value][place] / queries[place]];
        const point = points.get(pair.join()) ?? { first: pair[0], second: pair[1], count: 0, names: [] };
        point.count += 1;
        if (point.names.length < 3) point.names.push(each);
        points.set(pair.join(), point);
      });
      const data = { ...chart.data, classes: [...points.values()].map((point) => ({ ...point, names: point.names.join(", ") })) };
      choose(figure, { ...chart, names: { "@first": first.value, "@second": second.value }, data });
    };
    first.addEventListener("change", change);
    second.addEventListener("change", change);
  }
  // ---- retrieved images, drawn when they come into view ----
  function retrieves() {
    const { classes, images, queries, answers, parts, examples, paired, missing } = json("retrieved");
    const shown = Object.keys(answers);
    const choice = $("#gallery .choice"), note = $("#gallery-note"), verdict = $("#gallery-paired"), cards = $("#gallery .cards");
    const pick = (label, names, value) => {
      const select = el("select", {}, ...names.map((each, place) => el("option", { value: place }, each)));
      select.value = value;
      select.addEventListener("change", show);
      return [el("label", {}, label, select), select];
    };
    function picture(number, prefix) {
      const [name, of, address] = images[number];
      const named = `${prefix}${classes[of]}, ${name}`;
      return address ? el("img", { src: address, alt: named, title: name, loading: "lazy", decoding: "async" })
        : el("span", { class: "blank", role: "img", "aria-label": named, title: name }, "no picture");
    }
    const isRight = (query, model) => images[answers[model][query][0][0]][1] === images[queries[query]][1];
    function answer(query, model) {
      const of = images[queries[query]][1];
      return el("ol", { class: "answers", "aria-label": `nearest by ${model}` }, ...answers[model][query].map(([number, similarity]) => {
        const right = images[number][1] === of;
        const mark = el("span", { class: `mark ${right ? "right" : "wrong"}`, "aria-hidden": "true" }, right ? "✓" : "✗");
        return el("li", { class: right ? "right" : "wrong" }, picture(number, right ? "right: " : "wrong: "), mark,
          el("span", { class: "of" }, classes[images[number][1]]), el("span", { class: "at" }, similarity == null ? "–" : similarity.toFixed(3)));
      }));
    }
    function card(query, models, heading) {
      const [name, of] = images[queries[query]];
      const asked = el("div", { class: "query" }, picture(queries[query], "query: "), el("span", { class: "of" }, classes[of]), el("span", { class: "file" }, name));
      const found = models.map((model) => el("div", {}, ...(models.length > 1 ? [el("p", { class: "whose" }, model)] : []), answer(query, model)));
      return el("li", { class: "card" }, ...(heading ? [el("p", { class: "pair" }, heading)] : []), el("div", { class: "row" }, asked, el("div", { class: "found" }, ...found)));
    }
    function comparison(first, other) {
      const one = shown.indexOf(first), two = shown.indexOf(other), turned = one > two;
      if (one === two) return [];
      const found = paired.find(([a, b]) => a === Math.min(one, two) && b === Math.max(one, two));
      if (!found) return ["The difference of these two is not tested: only the best models are."];
      const [, , a, b, difference, low, high, p] = found, signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(3)}`;
      const [alone, others] = turned ? [b, a] : [a, b], [mean, from, to] = turned ? [-difference, -high, -low] : [difference, low, high];
      const right = (model, n) => el("li", {}, `Only ${model} is right: ${count(n)} ${n === 1 ? "query" : "queries"}`);
      return [el("ul", {}, right(first, alone), right(other, others), el("li", {},
        `Difference in ${headline}: ${signed(mean)} (95 % interval ${low == null ? "not known" : `${signed(from)} to ${signed(to)}`}), p ${p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`}: `,
        p <= 0.05 ? "significant for this pair alone" : "not significant"))];
    }
    const [partLabel, part] = pick("show", parts.map(({ title }) => title), 0);
    const [modelLabel, model] = pick("model", shown, 0);
    const [secondLabel, second] = pick("and", shown, Math.min(1, shown.length - 1));
    choice.append(partLabel, modelLabel, secondLabel);
    function show() {
      const { kind, note: words, queries: listed, pairs, model: by } = parts[part.value];
      modelLabel.hidden = kind !== "model" && kind !== "two";
      secondLabel.hidden = kind !== "two";
      const first = shown[model.value], other = shown[second.value];
      verdict.replaceChildren(...(kind === "two" ? comparison(first, other) : []));
      note.textContent = kind === "list" || kind === "wrong" ? `${words} Neighbours by ${by}.` : words;
      let items;
      if (kind === "pairs") items = pairs.map(([a, b, times, all, by], place) => card(listed[place], [by], `${classes[a]} and ${classes[b]}: ${count(times)} of ${count(all)} answers; here by ${by}`));
      else if (kind === "model") items = [...(examples[first] ?? listed)].map((query) => card(query, [first]));
      else if (kind === "two") {
        const differ = (query) => isRight(query, first) !== isRight(query, other);
        const all = [...new Set([...listed, ...queries.keys()])];
        const ordered = [...all.filter(differ).sort((a, b) => isRight(b, first) - isRight(a, first)), ...all.filter((query) => !differ(query))];
        items = ordered.slice(0, listed.length || 24).map((query) => card(query, [first, other]));
      } else items = listed.map((query) => card(query, [by]));
      cards.replaceChildren(...items);
      $("#gallery").dataset.shown = kind;
    }
    $("#gallery-missing").hidden = !missing;
    $("#gallery-missing").textContent = `Images without a picture: ${count(missing)} (the limit of the page is reached, or they could not be read).`;
    show();
  }
  const galleries = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    galleries.disconnect();
    retrieves();
  }, { rootMargin: "300px" });
  if ($("#gallery")) galleries.observe($("#gallery"));
})();
