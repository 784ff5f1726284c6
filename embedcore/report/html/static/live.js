// The page of a running session: reload it, unless the reader has paused it or is using a dialog or a form.
"use strict";
(() => {
  const busy = () => document.querySelector("dialog[open], details#columns[open]") || document.activeElement?.matches("input, select");
  const pause = document.querySelector("#pause");
  const reload = () => { if (busy()) waiting = setTimeout(reload, 5000); else location.reload(); };
  const begin = () => setTimeout(reload, 1000 * Number(document.body.dataset.reload));
  let waiting = begin();
  pause.hidden = false;
  pause.addEventListener("click", () => {
    clearTimeout(waiting);
    waiting = waiting === null ? begin() : null;
    pause.textContent = waiting === null ? "Resume updates" : "Pause updates";
  });
  // A killed run cannot say so. If a server does not send the date of the page, the page looks new.
  const minutes = Math.floor((Date.now() - Date.parse(document.lastModified)) / 60000);
  if (minutes >= 15) document.querySelector(".running p").append(
    ` No update for ${minutes} minutes: a case takes long, or the run was killed (embedcore report --last shows what it measured).`);
})();
