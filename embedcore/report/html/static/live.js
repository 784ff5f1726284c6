// A page of a run that goes on: it looks for its next version, where the reader is not in the middle of something.
"use strict";
(() => {
  const busy = () => document.querySelector("dialog[open], details#columns[open]") || document.activeElement?.matches("input, select");
  const look = () => { if (busy()) setTimeout(look, 5000); else location.reload(); };
  setTimeout(look, 1000 * Number(document.body.dataset.reload));
  // A run that was killed cannot say so. Where a server does not tell how old a page is, it looks new.
  const minutes = Math.floor((Date.now() - Date.parse(document.lastModified)) / 60000);
  if (minutes >= 15) document.querySelector(".running p").append(
    ` Nothing new for ${minutes} minutes: a case takes long, or the run was killed (embedcore report --last shows what it has measured).`);
})();
