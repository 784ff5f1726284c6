// The pages of a comparison and of a history: filters for their lists, and charts.
"use strict";
(() => {
  const { $, json, el, figures } = embedPage;
  const { models, choices, charts } = json("data");
  const form = $("#filters"), lists = [...document.querySelectorAll("table.list tbody")];
  const words = lists.map((body) => body.textContent.toLowerCase());
  const counted = new Set(form?.closest("section").querySelectorAll("table.list tbody"));
  const inside = [...document.querySelectorAll("details.level")];
  const read = () => { const state = new URLSearchParams(location.hash.slice(1)); return { q: state.get("q") ?? "", family: state.get("family") ?? "" }; };
  let state = read();
  const { highlight } = figures({ charts: () => charts, datasets: { models }, signals: () => ({ family: state.family }) });
  const press = embedPage.legend(choices, () => state.family, (family) => change({ family }));

  function show() {
    const wanted = state.q.toLowerCase().split(/\s+/);
    let left = 0;
    lists.forEach((body, place) => {
      body.hidden = !(wanted.every((word) => words[place].includes(word)) && (!state.family || body.dataset.group === state.family));
      left += counted.has(body) && !body.hidden;
    });
    for (const table of document.querySelectorAll("table.list")) {
      const none = [...table.tBodies].every((body) => body.hidden);
      for (const hidden of [table.closest(".wide-table"), table.closest("section.step")]) if (hidden) hidden.hidden = none;
    }
    for (const level of inside) level.open ||= Boolean(state.q || state.family);
    if (form) {
      $("#count").textContent = left === counted.size ? `${left.toLocaleString("en")} in all` : `${left.toLocaleString("en")} of ${counted.size.toLocaleString("en")}`;
      form.q.value = state.q;
      form.family.value = state.family;
    }
    press();
    highlight();
  }
  function change(changes) {
    state = { ...state, ...changes };
    const hash = new URLSearchParams(Object.entries(state).filter(([, value]) => value)).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    show();
  }
  if (form) {
    form.family.append(el("option", { value: "" }, "all"), ...choices.map(({ slug, title, count }) => el("option", { value: slug }, count ? `${title} (${count})` : title)));
    form.addEventListener("input", ({ target }) => {
      const { name, value } = target, at = target.selectionStart;
      change({ [name]: value });
      if (name === "q") target.setSelectionRange(at, at);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => { event.preventDefault(); change({ q: "", family: "" }); });
    form.hidden = false;
  }
  addEventListener("hashchange", () => { if (!location.hash || location.hash.includes("=")) { state = read(); show(); } });
  addEventListener("DOMContentLoaded", () => { show(); document.body.dataset.ready = "1"; });
})();
