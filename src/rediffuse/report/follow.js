"use strict";

const EVERY_MILLISECONDS = 2000;

function swap(page) {
  const stages = document.getElementById("stages"), range = document.getElementById("at");
  const at = stages ? stages.options[range.value].dataset.name : null;
  const focused = document.activeElement.id, top = scrollY;
  const open = [...document.querySelectorAll("details")].map(each => each.open);
  document.title = page.title;
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.querySelectorAll("details").forEach((each, i) => { each.open = Boolean(open[i]); });
  slide(at);
  if (focused) document.getElementById(focused)?.focus({preventScroll: true});
  scrollTo({top, behavior: "instant"});
}

async function look() {
  const state = document.getElementById("following");
  try {
    const head = await fetch("/", {method: "HEAD", cache: "no-store"});
    const tag = head.headers.get("ETag");
    if (tag !== document.querySelector("main").dataset.version && !document.querySelector("#at:active")) {
      const answer = await fetch("/", {cache: "no-store"});
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
    state.textContent = "Following the run: this page updates itself.";
  } catch {
    state.textContent = "The server of this page cannot be reached; this is the last state that was received.";
  }
  setTimeout(look, EVERY_MILLISECONDS);
}

look();
