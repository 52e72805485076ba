// Every stream's account, and how fast it flows.

import { list, live, name, streamKey } from "./api.js";
import { bytes, empty, h, number, state, table } from "./dom.js";

const COLUMNS = ["produced", "delivered", "buffered", "dropped", "dead", "duplicates"];
const headed = (word) => word[0].toUpperCase() + word.slice(1);

const balance = (stream) => (stream.balances ? state("good", "balances") : state(stream.trouble ? "warn" : "bad", "does not balance"));

const edge = (stream) => h("code", {}, stream.edge.replace("->", " → "));

const way = (stream) => (stream.producer === stream.consumer ? stream.producer : `${stream.producer} → ${stream.consumer}`);

const noStreams = () =>
  empty(
    "No streams yet",
    "A stream is an edge of a workflow on which records travel. Apply a workflow, and its accounts appear here.",
    h("a", { class: "button main", href: "#/workflows/new" }, "New workflow"),
  );

// What keeps a stream from flowing, as far as it is known.
function trouble(stream, daemons) {
  const consumer = stream.ledger.buffered > 0 && daemons.find((daemon) => daemon.name === stream.consumer);
  if (stream.trouble || !consumer || consumer.presence === "online") return stream.trouble;
  return `${consumer.name} is ${consumer.presence}`;
}

// What a number alone does not tell.
function aside(stream, column) {
  const { unconfirmed, filtered } = stream.ledger;
  const among = [filtered > 0 && `${number(filtered)} filtered`, unconfirmed > 0 && `${number(unconfirmed)} unconfirmed`];
  const text =
    (column === "buffered" && stream.buffered_bytes > 0 && bytes(stream.buffered_bytes)) ||
    (column === "delivered" && among.filter(Boolean).join(", "));
  return text && [h("br"), h("span", { class: "quiet" }, text)];
}

// `own` when the page is the workflow's own, whose name need not be said again.
export function streamTable(streams, { daemons = [], own = false }) {
  const rows = streams.map((stream) =>
    h(
      "tr",
      { "data-key": streamKey(stream) },
      h("td", {}, !own && [h("a", { href: `#/workflows/${name(stream.workflow)}` }, stream.workflow), h("br")], edge(stream)),
      h("td", {}, way(stream)),
      COLUMNS.map((column) =>
        h("td", { class: "num" }, number(stream.ledger[column]), aside(stream, column)),
      ),
      h("td", { class: "num" }, `${number(stream.rate)}/s`),
      h("td", {}, balance(stream), h("div", { class: "quiet" }, trouble(stream, daemons))),
    ),
  );
  const total = (column) => streams.reduce((sum, stream) => sum + stream.ledger[column], 0);
  const foot =
    streams.length > 1 &&
    h(
      "tr",
      {},
      h("td", { colspan: 2 }, `${streams.length} streams`),
      COLUMNS.map((column) => h("td", { class: "num" }, number(total(column)))),
      h("td", { class: "num" }, `${number(streams.reduce((sum, stream) => sum + stream.rate, 0))}/s`),
      h("td", {}, streams.every((stream) => stream.balances) ? state("good", "all balance") : state("warn", "not all balance")),
    );
  const heads = ["Stream", "From → to", ...COLUMNS.map((word) => ({ text: headed(word), num: true })), { text: "Rate", num: true }, "Account"];
  return table(heads, rows, foot);
}

export function ledger() {
  const draw = ({ daemons, streams }) => [
    h("div", { class: "head" }, h("h1", {}, "Ledger")),
    h("p", { class: "quiet" }, "Of every record that was taken from a source it is known where it is: produced = delivered + buffered + dropped + dead. Duplicates arrived again and were recognised; filtered is what a transform on the receiving side left out of what was delivered; unconfirmed is what a destination that lost its memory has by the producer's word."),
    streams.length > 0 ? streamTable(streams, { daemons }) : noStreams(),
  ];
  return { load, fresh: (picture) => picture, draw };
}

async function load() {
  const [daemons, streams] = await Promise.all([list("/daemons"), list("/ledger")]);
  return { daemons, streams };
}

// Commands that show records passing the streams' first nodes. The page cannot: daemons show records to operators only.
export function taps(streams) {
  const lines = new Set(streams.map((stream) => `mycelial tap ${stream.workflow} ${stream.edge.split("->")[0]}`));
  if (lines.size === 0) return null;
  return [
    h("h2", {}, "See the records themselves"),
    h("p", { class: "quiet" }, "Daemons show records to operators only, never to the plane or this page. On the command line:"),
    h("pre", {}, [...lines].join("\n")),
  ];
}

const WIDTH = 240;
const HEIGHT = 40;

// The rate of the last two minutes. Scaled to its own highest value, which is written beside it.
function spark(samples) {
  const most = Math.max(1, ...samples);
  const step = WIDTH / 119;
  const start = WIDTH - (samples.length - 1) * step;
  const points = samples.map((value, index) => `${(start + index * step).toFixed(1)} ${(HEIGHT - 2 - (value / most) * (HEIGHT - 6)).toFixed(1)}`);
  return h(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    h("title", {}, `Rate of the last ${samples.length} seconds, at most ${number(most)} a second`),
    h("path", { class: "floor", d: `M0 ${HEIGHT - 1}H${WIDTH}` }),
    points.length > 1 && h("path", { d: `M${points.join("L")}` }),
  );
}

export function flow() {
  const draw = ({ daemons, streams }) => {
    const count = (word) => daemons.filter((daemon) => daemon.presence === word).length;
    const words = ["online", "late", "offline", "unknown"].filter((word) => count(word) > 0);
    return [
      h("div", { class: "head" }, h("h1", { class: "grow" }, "Live"), h("span", { class: "quiet" }, words.map((word) => `${count(word)} ${word}`).join(", ") || "no daemons")),
      streams.length === 0
        ? noStreams()
        : h(
            "div",
            { class: "cards" },
            streams.map((stream) =>
              h(
                "section",
                { class: "card", "data-key": streamKey(stream), "aria-label": `${stream.workflow} ${stream.edge}` },
                h("h2", {}, h("a", { href: `#/workflows/${name(stream.workflow)}` }, stream.workflow), " ", edge(stream)),
                h("div", { class: "quiet" }, way(stream)),
                h("div", { class: "big" }, number(stream.rate), h("small", {}, " records/s")),
                spark(live.rates.get(streamKey(stream)) ?? []),
                h("div", { class: "quiet" }, `${number(stream.ledger.buffered)} buffered, ${number(stream.ledger.delivered)} delivered`),
                trouble(stream, daemons) && h("div", {}, state("warn", trouble(stream, daemons))),
              ),
            ),
          ),
      taps(streams),
    ];
  };
  return { load, fresh: (picture) => picture, draw };
}
