// Shared by all pages: elements, and charts that are drawn when they come into view. Data is inserted as text only.
"use strict";
const embedPage = (() => {
  const $ = (selector, inside = document) => inside.querySelector(selector);
  const json = (id) => JSON.parse(document.getElementById(id).textContent);
  const narrow = matchMedia("(max-width: 620px)").matches;

  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child != null));
    return made;
  }
  function drawn(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (variable) => style.getPropertyValue(variable).trim();
    const [ink, soft, grid] = [of("--ink"), of("--soft"), of("--grid")];
    return {
      background: null, font: getComputedStyle(document.body).fontFamily, view: { stroke: null }, legend: { disable: true },
      axisQuantitative: { tickCount: narrow ? 4 : 7 },
      axis: { gridColor: grid, domainColor: soft, tickColor: soft, labelColor: ink, titleColor: soft, labelFontSize: 12, titleFontWeight: "normal", labelOverlap: true },
      text: { color: ink, fontSize: 11.5 }, rule: { color: soft }, line: { color: soft }, tick: { color: soft },
    };
  }
  // A value in a tooltip, as HTML: Vega writes missing ones as undefined and NaN.
  const shown = (value) => (["undefined", "null", "NaN"].includes(String(value)) ? "–" : String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;"));
  function named(value, names) { return Object.entries(names).reduce((text, [key, word]) => text.replaceAll(key, JSON.stringify(word).slice(1, -1)), value); }

  // `charts()` returns those of the page; `datasets`: shared by them; `signals()` returns the values of their parameters;
  // `rows(figure, chart)`: those of the dataset models, if they change (`refill`), and `filtered(figure, chart)` which ones in words;
  // `begun(figure, chart)` is called before a figure is drawn for the first time; `brief(chart)`: names to shorten in a chart.
  function figures({ charts, datasets, signals, rows = null, filtered, begun = () => {}, brief = () => new Map() }) {
    const views = new Map(), all = [...document.querySelectorAll(".chart")];
    const update = (figure, view) => { for (const [key, value] of Object.entries({ back: getComputedStyle(figure).backgroundColor, ...signals() })) view.signal(key, value); view.run(); };
    async function draw(figure) {
      const chart = figure.chart, plot = $(".plot", figure), token = (figure.token = {});
      figure.view?.finalize();
      views.delete(figure.view);
      let text = named(JSON.stringify(chart.spec), chart.names);
      for (const [name, shorter] of brief(chart)) text = text.replaceAll(JSON.stringify(name), JSON.stringify(shorter));
      const spec = JSON.parse(text);
      delete spec.title;
      const width = Math.max(240, plot.clientWidth), highest = Number(figure.dataset.height);
      if (highest && spec.height > highest) spec.height = highest;
      figure.shared = rows && JSON.stringify(spec).includes('"name":"models"');
      const result = await vegaEmbed(el("div"), {
        ...spec, width, autosize: { type: "fit-x", contains: "padding" }, datasets: { ...spec.datasets, ...datasets, ...(rows ? { models: rows(figure, chart) } : {}), ...chart.data },
      }, {
        ast: true, actions: false, renderer: "svg", tooltip: { theme: "custom", sanitize: shown },
        config: { ...colours(), axisY: { labelLimit: Math.min(330, Math.round(0.46 * width)) } },
      });
      if (figure.token !== token) { result.finalize(); return; }
      figure.view = result.view;
      figure.width = width;
      views.set(result.view, figure);
      const host = result.view.container();
      host.setAttribute("role", "img");
      host.setAttribute("aria-label", `${chart.title}. ${chart.note}`);
      for (const inner of host.querySelectorAll("svg, svg *")) for (const attribute of ["role", "aria-label", "aria-roledescription"]) inner.removeAttribute(attribute);
      plot.replaceChildren(host);
      update(figure, result.view);
      if (figure.shared) $(".filtered", figure).textContent = filtered(figure, chart);
      figure.dataset.drawn = chart.name;
    }
    function choose(figure, chart) {
      figure.chart = chart;
      $(".text", figure).textContent = chart.note;
      const made = (kind) => el("button", { type: "button", class: "link", onclick: () => save(figure, kind) }, `Save as ${kind.toUpperCase()}`);
      $(".links", figure).replaceChildren(made("svg"), made("png"));
      if (figure.seen) draw(figure);
    }
    async function save(figure, kind) {
      const address = await figure.view.toImageURL(kind, 2);
      el("a", { href: address, download: `${figure.chart.name}.${kind}` }).click();
    }
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting || target.seen) continue;
        target.seen = true;
        seen.unobserve(target);
        begin(target);
        draw(target);
      }
    }, { rootMargin: "300px" });
    function begin(figure) {
      const mine = charts().filter((chart) => chart.section === figure.dataset.section);
      if (mine.length > 1) {
        const select = el("select", { "aria-label": `${figure.dataset.section}: which` }, ...mine.map((chart, place) => el("option", { value: place }, chart.label)));
        select.addEventListener("change", () => choose(figure, mine[select.value]));
        $(".choice", figure).append(select);
      }
      begun(figure, mine[0]);
      figure.seen = false;
      choose(figure, mine[0]);
      figure.seen = true;
    }
    const again = () => { for (const figure of all) if (figure.view) draw(figure); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    let waiting;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { for (const figure of all) if (figure.view && Math.abs($(".plot", figure).clientWidth - figure.width) > 8) draw(figure); }, 200);
    });
    // Vega's script comes after this one.
    addEventListener("DOMContentLoaded", () => { for (const figure of all) seen.observe(figure); });
    // Vega writes into its rows, so that each chart has its own.
    const refill = () => views.forEach((figure, view) => {
      if (!figure.shared) return;
      view.data("models", rows(figure, figure.chart).map((row) => ({ ...row }))).run();
      $(".filtered", figure).textContent = filtered(figure, figure.chart);
    });
    return { choose, refill, highlight: () => views.forEach(update) };
  }
  // Buttons that highlight a group in all figures; `choose` is called with its slug, or with "" for none.
  function legend(groups, chosen, choose) {
    const place = $("#legend");
    if (!place) return () => {};
    const dot = (colour) => colour && drawn("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, drawn("circle", { cx: 5, cy: 5, r: 5, fill: colour }));
    $("div", place).append(...groups.map(({ slug, title, colour }) => el("button", {
      type: "button", value: slug, onclick: () => choose(chosen() === slug ? "" : slug),
    }, dot(colour), title)));
    place.open = groups.length <= 16;
    return () => { for (const button of place.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === chosen())); };
  }
  return { $, json, narrow, el, drawn, figures, legend };
})();
