import { expect, it } from "vitest";
import { streamKey } from "@/api/live";
import type { StreamView } from "@/api/types";
import { bytesOf, edgeState, fill, quotaOf, shares, streamsOf, underWay } from "./streams";

const ledger = {
  produced: 9,
  buffered: 2,
  delivered: 7,
  dropped: 0,
  dead: 0,
  duplicates: 0,
  unconfirmed: 0,
  filtered: 0,
};
const stream: StreamView = {
  workflow: "shop",
  edge: "db->out",
  producer: "gateway",
  consumer: "hub",
  epoch: 1,
  ledger,
  balances: true,
  buffered_bytes: 100,
  rate: 5,
  lag_ms: null,
  trouble: "",
};

it("both streams of an edge are its account", () => {
  const all = [
    stream,
    { ...stream, edge: "db->out#2" },
    { ...stream, edge: "db->other" },
    { ...stream, workflow: "x" },
  ];
  const found = streamsOf(all, "shop", "db->out");
  expect(found).toHaveLength(2);
  const expected = {
    tone: "good",
    trouble: "",
    rate: 10,
    bytesRate: null,
    isEstimate: true,
    buffered: 4,
    bufferedBytes: 200,
    lagMs: null,
  };
  expect(edgeState(found)).toEqual(expected);
  // A size is known of one of them.
  expect(edgeState(found, new Map([[streamKey(stream), 50]]))).toEqual({ ...expected, bytesRate: 250 });
  // The daemons have counted them, which is better than any size.
  const told = found.map((each) => ({ ...each, bytes_per_s: 40 }));
  expect(edgeState(told, new Map([[streamKey(stream), 50]]))).toEqual({
    ...expected,
    bytesRate: 80,
    isEstimate: false,
  });
});

it.each([
  [{ bytes_per_s: 1_400_000 }, 0, undefined, "1.3 MiB"],
  [{ bytes_per_s: 0 }, 3, 100, "0 B"],
  [{}, 3, 100, "about 300 B"],
  [{}, 3, undefined, "not known: nothing has waited yet"],
  [{}, 0, undefined, "0 B"],
] as const)("of %j at %d records a second of %s bytes: %s", (stream, rate, size, said) =>
  expect(bytesOf(stream, rate, size)).toBe(said),
);

it("finds the parts of a shared destination, and whole ones with such names not", () => {
  const edges = ["a.out-1->out.1", "a.out-16->out.16", "x->m->a.out-2->out.2", "a.out-1->out.2", "a.out-1->other"];
  const all = edges.map((edge) => ({ ...stream, edge }));
  expect(streamsOf(all, "shop", "a->out").map(({ edge }) => edge)).toEqual(edges.slice(0, 2));
  expect(streamsOf([{ ...stream, edge: "split.hot.out-3->out.3" }], "shop", "split.hot->out")).toHaveLength(1);
});

it.each([
  [{ trouble: "no credit" }, "bad", "no credit"],
  [{ ledger: { ...ledger, dead: 3 } }, "warn", "records dropped or dead"],
  [{ ledger: { ...ledger, dead: 3 }, has_letters: false }, "good", ""],
  [
    { ledger: { ...ledger, dead: 3, dropped: 2 }, has_letters: true, dropped_lately: false },
    "warn",
    "records dropped or dead",
  ],
  [{ ledger: { ...ledger, dropped: 2 }, has_letters: true, dropped_lately: false }, "good", ""],
  [{ ledger: { ...ledger, dropped: 2 }, has_letters: false, dropped_lately: true }, "warn", "records dropped or dead"],
  [{ lag_ms: 59_999 }, "good", ""],
  [{ lag_ms: 60_000 }, "warn", ""],
  [{ lag_ms: 600_000, ledger: { ...ledger, dead: 3 } }, "bad", "records dropped or dead"],
])("%j", (change, tone, trouble) => expect(edgeState([{ ...stream, ...change }])).toMatchObject({ tone, trouble }));

it.each([
  [{}, 2 ** 30],
  [{ spool: { quota: "64MiB", when_full: "block" } }, 2 ** 26],
  [{ spool: { quota: "1.5 gib" } }, 1.5 * 2 ** 30],
  [{ spool: { quota: "500 MB" } }, 500_000_000],
  [{ spool: { quota: 99n } }, 99],
  [{ spool: { quota: "much" } }, 2 ** 30],
])("as a spool has it: %#", (keys, bytes) => expect(quotaOf({ keys })).toBe(bytes));

it("the fullest counts", () => {
  expect(fill([stream, { ...stream, buffered_bytes: 400 }], 1_000)).toBe(0.4);
  expect(fill([{ ...stream, buffered_bytes: 9_000 }], 1_000)).toBe(1);
  expect(fill([], 1_000)).toBe(0);
});

it.each([
  [[[2, 2]], ""],
  [
    [
      [2, 1],
      [2, 2],
    ],
    "1 of 2 daemons run revision 2",
  ],
  [[[3, 0]], "0 of 1 daemon run revision 3"],
  [[], ""],
])("how far a revision has come: %j", (all, text) => {
  const parts = all.map(([wanted = 0, revision = 0]) => ({
    workflow: "shop",
    daemon: "hub",
    revision,
    wanted,
    state: null,
    cause: "",
  }));
  expect(underWay(parts)).toBe(text);
});

it("each daemon has its share", () => {
  const part = { workflow: "shop", daemon: "gateway", revision: 1, wanted: 1, state: "running" as const, cause: "" };
  const lost = { ...stream, lag_ms: 9_000, ledger: { ...ledger, dead: 3 } };
  expect(shares([part, { ...part, daemon: "hub" }], [lost])).toMatchObject([
    { daemon: "gateway", sends: 5, gets: 0, waiting: 2, waitingBytes: 100, lagMs: 9_000, lost: 3 },
    { daemon: "hub", sends: 0, gets: 5, waiting: 0, waitingBytes: 0, lagMs: null, lost: 0 },
  ]);
});
