"use strict";

function slide(at) {
  const range = document.getElementById("at");
  if (!range) return;
  const stages = [...document.getElementById("stages").options];
  const tiles = document.querySelectorAll("#slider .tile");
  const now = document.getElementById("now"), play = document.getElementById("play");
  let playing = 0, shown = stages[0].dataset.name;

  function show() {
    const stage = stages[range.value];
    for (const tile of tiles) tile.classList.replace(shown, stage.dataset.name);
    shown = stage.dataset.name;
    now.textContent = stage.label;
    range.setAttribute("aria-valuetext", stage.label);
  }
  function stop() {
    clearInterval(playing);
    playing = 0;
    play.textContent = "Play";
  }
  function step() {
    if (Number(range.value) === stages.length - 1) return stop();
    range.value = Number(range.value) + 1;
    show();
  }
  range.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (playing) return stop();
    if (Number(range.value) === stages.length - 1) range.value = 0;
    show();
    play.textContent = "Pause";
    playing = setInterval(step, 350);
  });
  range.closest(".control").hidden = false;
  const place = stages.findIndex(stage => stage.dataset.name === at);
  range.value = place < 0 ? 0 : place;
  show();
}

slide();
