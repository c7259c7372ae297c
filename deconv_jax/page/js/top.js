"use strict";
// Links to sounds play here instead of leaving the page; without this script they still open the sound.
const player = document.getElementById("player");
const now = document.getElementById("now");
let current = null;

function play(link) {
  for (const old of document.querySelectorAll(".playing")) old.classList.remove("playing");
  current = link;
  for (const same of link.closest(".entry").querySelectorAll("a.sound")) {
    if (same.getAttribute("href") === link.getAttribute("href")) same.classList.add("playing");
  }
  const entry = link.closest(".entry");
  const feature = link.closest(".feature");
  const what = link.getAttribute("href").startsWith("clips/") ? "the original" : feature.querySelector(".name").textContent;
  now.textContent = `${entry.querySelector(".song").textContent}: ${what}`;
  player.src = link.getAttribute("href");
  player.play().catch(() => { now.textContent = "This sound cannot be played: keep the page beside its folders."; });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.sound");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link === current && !player.paused) player.pause();
  else play(link);
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("select, audio, input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && current && !event.target.closest("summary, button, a")) {
    event.preventDefault();
    if (player.paused) player.play(); else player.pause();
  } else if (event.key === "n" || event.key === "N") {
    const next = current && current.closest(".entry").nextElementSibling;
    const original = current && current.getAttribute("href").startsWith("clips/");
    const links = next ? [...next.querySelectorAll(".plays a")] : [...document.querySelectorAll("details[open] .plays a")];
    const link = links[original && next ? 1 : 0];
    if (link) { play(link); link.focus(); }
  }
});

for (const section of document.querySelectorAll("#features > section")) {
  const list = section.querySelector(".list");
  const orders = {
    number: (a, b) => a.dataset.number - b.dataset.number,
    purity: (a, b) => b.dataset.purity - a.dataset.purity,
    shared: (a, b) => a.dataset.shared - b.dataset.shared,
  };
  section.querySelector(".sort").addEventListener("change", (event) => {
    list.append(...[...list.children].sort((a, b) => orders[event.target.value](a, b) || orders.number(a, b)));
  });
  section.querySelector(".open").addEventListener("click", (event) => {
    const open = ![...list.children].every((feature) => feature.open);
    for (const feature of list.children) feature.open = open;
    event.target.textContent = open ? "Close all" : "Open all";
  });
}
