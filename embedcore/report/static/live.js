// A page of a run that goes on: it looks for its next version, where the reader is not in the middle of something.
"use strict";
(() => {
  const busy = () => document.querySelector("dialog[open], details#columns[open]") || document.activeElement?.matches("input, select");
  const look = () => { if (busy()) setTimeout(look, 5000); else location.reload(); };
  setTimeout(look, 1000 * Number(document.body.dataset.reload));
})();
