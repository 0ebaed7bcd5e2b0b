// Asks, sends votes, and loses none: a vote that could not be sent is kept in the browser until the server has it.
const el = (id) => document.getElementById(id);
const KEY = "dipp-vote:" + location.pathname;
const PIXEL_ART = 128;
const LONG = 120;
const AGAIN = 1500;
const LOST = "The connection was lost. Your vote is kept here and sent when it is back.";
const AWAY = "The connection was lost. The page goes on when it is back.";
const KEYS = { ArrowLeft: "first", ArrowRight: "second", ArrowDown: "equal", " ": "equal" };

let voter = "";
let state = null;
let busy = false;
const fetched = new Map();

// One name for each tab, so that two voters in one browser stay apart; the browser remembers the last one.
function remembered(store, name) {
  try { return store.getItem(KEY + name) || ""; } catch { return ""; }
}
function remember(store, name, value) {
  try {
    if (value) store.setItem(KEY + name, value);
    else store.removeItem(KEY + name);
  } catch { /* a browser that keeps nothing asks for the name again, and loses a vote only if the tab is closed */ }
}

let waiting = null;
function keep(vote) {
  waiting = vote;
  remember(localStorage, ":waiting:" + voter, vote && JSON.stringify(vote));
}
function kept() {
  if (waiting) return waiting;
  try { return JSON.parse(remembered(localStorage, ":waiting:" + voter)); } catch { return null; }
}

function say(text) {
  el("banner").textContent = text;
  el("banner").hidden = !text;
}

const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

class Moved extends Error {}

// Tries until there is an answer: the server may have been stopped, and comes back where it was.
async function post(action, body) {
  for (;;) {
    let answer = null;
    try {
      answer = await fetch(action, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ voter, ...body }),
      });
    } catch {
      say(kept() ? LOST : AWAY);
    }
    if (answer) {
      if (answer.status === 403) throw new Moved("The votes moved to another address: open the link that stands in the terminal.");
      const told = await answer.json().catch(() => ({ error: "The server's answer cannot be read." }));
      if (answer.ok) return told;
      if (answer.status < 500) throw new Error(told.error);
      say(told.error + (kept() ? " Your vote is kept here and sent again." : ""));
    }
    await pause(AGAIN);
  }
}

// An image is decoded before it is shown, so that both appear at the same moment.
function load(address) {
  if (!fetched.has(address)) {
    const image = new Image();
    image.src = address;
    fetched.set(address, image);
    if (fetched.size > 12) fetched.delete(fetched.keys().next().value);
  }
  return fetched.get(address).decode();
}

function put(side, address) {
  const image = el(side + "-image");
  image.src = address;
  const pixels = fetched.get(address);
  image.classList.toggle("pixelated", !!pixels && Math.max(pixels.naturalWidth, pixels.naturalHeight) <= PIXEL_ART);
}

function only(id) {
  for (const one of ["name", "ask", "end"]) el(one).hidden = one !== id;
  el("foot").hidden = id === "name";
  el("progress").hidden = id === "name";
}

async function show(told) {
  state = told;
  say(told.notice);
  el("undo").disabled = !told.last;
  el("bar").value = Math.min(told.votes, told.goal);
  el("bar").max = told.goal;
  el("count").textContent = told.votes + " of " + told.goal + " votes";
  el("who").textContent = voter;
  el("who").title = "Vote under another name";
  el("who").setAttribute("aria-label", "voting as " + voter + "; change the name");
  el("who").hidden = false;
  if (!told.question) {
    finish(told);
    return;
  }
  const { prompt, left, right } = told.question;
  el("prompt").textContent = prompt || "(no text)";
  el("prompt").classList.toggle("long", prompt.length > LONG);
  el("ask").classList.add("waiting");
  only("ask");
  for (;;) {
    try {
      await Promise.all([load(left), load(right)]);
      break;
    } catch {
      fetched.delete(left);
      fetched.delete(right);
      const next = await post("question", {}); // the server knows by now whether an image is gone or it was away
      if (!next.question || next.question.id !== told.question.id) return show(next);
      say(AWAY);
      await pause(AGAIN);
      say("");
    }
  }
  put("left", left);
  put("right", right);
  el("ask").classList.remove("waiting");
  ahead();
}

function finish(told) {
  only("end");
  const counted = told.votes + " vote" + (told.votes === 1 ? "" : "s");
  el("end-title").textContent = told.done ? "Thank you, that is all that was asked." : "Thank you, there is no other pair.";
  el("end-text").textContent = told.done
    ? counted + " of " + voter + " are kept. Stop here, or go on as long as you like."
    : counted + " of " + voter + " are kept, and every pair of images has been compared.";
  el("more").hidden = !told.done;
  el("end-title").focus();
}

async function ahead() {
  try {
    const answer = await fetch("ahead", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ voter }),
    });
    if (answer.ok) (await answer.json()).images.forEach((address) => { load(address).catch(() => fetched.delete(address)); });
  } catch { /* they are fetched when they are shown */ }
}

// One thing at a time: what is pressed while a vote is on its way counts for nothing.
async function act(work) {
  if (busy) return;
  busy = true;
  try {
    await show(await work());
  } catch (error) {
    say(error.message);
  }
  busy = false;
}

async function send(vote) {
  keep(vote);
  try {
    const told = await post("vote", vote);
    keep(null);
    return told;
  } catch (error) {
    if (!(error instanceof Moved)) keep(null); // the server has it and wants none of it
    throw error;
  }
}

function choose(choice) {
  if (busy || !state || !state.question || el("ask").hidden || el("ask").classList.contains("waiting")) return;
  const vote = { showing: state.question.id, choice };
  act(() => send(vote));
}

function undo() {
  if (busy || !state || !state.last) return;
  const showing = state.last;
  act(() => post("undo", { showing }));
}

function begin(name) {
  voter = name;
  remember(sessionStorage, ":voter", name);
  remember(localStorage, ":voter", name);
  const vote = kept();
  act(() => (vote ? send(vote) : post("question", {})));
}

function ask() {
  state = null;
  say("");
  only("name");
  el("who").hidden = true;
  el("voter").value = voter || remembered(localStorage, ":voter") || "me";
  el("voter").focus();
  el("voter").select();
}

el("name").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = el("voter").value.trim().replace(/\s+/g, " ");
  if (name) begin(name);
});
document.querySelectorAll("[data-choice]").forEach((one) => {
  one.addEventListener("click", () => choose(one.dataset.choice));
});
el("undo").addEventListener("click", undo);
el("more").addEventListener("click", () => act(() => post("more", {})));
el("who").addEventListener("click", () => { if (!busy) ask(); });
el("help-open").addEventListener("click", () => el("help").showModal());
el("help-close").addEventListener("click", () => el("help").close());
document.addEventListener("keydown", (event) => {
  if (event.repeat && event.target.tagName === "BUTTON") event.preventDefault(); // a key that is held is one vote
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || el("help").open || event.target.tagName === "INPUT") return;
  const pressed = event.target.tagName === "BUTTON" && !event.target.dataset.choice && event.key === " ";
  if (pressed) return; // the space bar presses the button that has the focus
  if (event.key === "?") el("help").showModal();
  else if (event.key === "u" || event.key === "Backspace") undo();
  else if (event.key in KEYS && !el("ask").hidden) choose(KEYS[event.key]);
  else return;
  event.preventDefault();
});
// The space bar would press a focused image when it is let go, for the next pair.
document.addEventListener("keyup", (event) => {
  if (event.key === " " && event.target.dataset && event.target.dataset.choice) event.preventDefault();
});

const named = new URLSearchParams(location.search).get("voter") || remembered(sessionStorage, ":voter");
if (named) begin(named.trim().replace(/\s+/g, " ").slice(0, 80) || "me");
else ask();
