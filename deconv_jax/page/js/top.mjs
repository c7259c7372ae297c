// The strongest clips: links to sounds play here instead of leaving the page; without this script they still open.
import { $ } from "./dom.mjs";
import { keyOf } from "./keys.mjs";

const player = $("player");
let current = null;
const isOriginal = (link) => link.getAttribute("href").startsWith("clips/");

const play = (link) => {
  for (const old of document.querySelectorAll(".playing")) old.classList.remove("playing");
  current = link;
  const entry = link.closest(".entry");
  for (const same of entry.querySelectorAll("a.sound")) {
    if (same.getAttribute("href") === link.getAttribute("href")) same.classList.add("playing");
  }
  const what = isOriginal(link) ? "the original" : link.closest(".feature").querySelector(".name").textContent;
  $("now").textContent = `${entry.querySelector(".song").textContent}: ${what}`;
  player.src = link.getAttribute("href");
  player.play().catch(() => { // also when another one is wanted before this has begun
    if (link === current) $("now").textContent = "This sound cannot be played: keep the page beside its folders.";
  });
};
const toggle = () => (player.paused ? player.play() : player.pause());

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.sound");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link === current && !player.paused) player.pause();
  else play(link);
});

document.addEventListener("keydown", (event) => {
  const key = keyOf(event);
  if (event.target.closest("select, audio, input")) return;
  if (key === " " && current && !event.target.closest("summary, button, a")) {
    event.preventDefault();
    toggle();
  } else if (key === "n") {
    const next = current?.closest(".entry").nextElementSibling;
    const links = (next ?? document).querySelectorAll(next ? ".plays a" : "details[open] .plays a");
    const link = links[next && isOriginal(current) ? 1 : 0];
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
